"""Which drives are away, for how long, and which came back.

A drive that is merely absent for a moment (a cable, a host that restarts) keeps its rows and is not repaired around; one
that is absent for longer than the grace period is *given up*: what lies on it counts as missing. Nothing is final in
that: when it comes back, whatever is still referred to there counts again.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from ciaosfs.stripe.store import DriveState, DriveStatus


class Absences:
    """For the loop. Time counts from when a drive was first seen absent since the store was opened."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._since_s: dict[int, float] = {}
        self._arrivals: dict[int, int] = {}

    def look(self, drives: Sequence[DriveStatus]) -> tuple[set[int], set[int]]:
        """Take over how the drives are; returns those that are away now, and those that came since the last look."""
        now_s = trio.current_time()
        away = {drive.number for drive in drives if drive.state is DriveState.ABSENT}
        self._since_s = {number: self._since_s.get(number, now_s) for number in away}
        came = {
            drive.number
            for drive in drives
            if drive.number not in away and drive.arrivals > self._arrivals.get(drive.number, drive.arrivals)
        }
        self._arrivals = {drive.number: drive.arrivals for drive in drives}
        return away, came

    def given_up(self) -> frozenset[int]:
        """Drives that have been away for longer than the grace period."""
        now_s = trio.current_time()
        return frozenset(
            number for number, since_s in self._since_s.items() if now_s - since_s >= self._grace_s
        )
