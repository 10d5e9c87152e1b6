"""Noticing that calls take too long, at next to no cost for those that do not.

A call is put into a set when it is submitted and taken out when it has ended; one task looks through the set every few
milliseconds while there is anything in it. No timer and no task for each call.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import trio

from ciaosfs.base import clock
from ciaosfs.drive.workers import Call

log = logging.getLogger(__name__)

TICK_S = 0.005
"""At most between two looks; no bound is shorter, so each is met exactly."""
PAUSE_S_MIN = 0.0005
IDLE_TICKS_MAX = 20
"""Looks at nothing before the task waits to be woken, which costs the call that does it a little."""
STALL_S = 0.5
"""When a look comes late by more, this process had no time: that is not held against the drives."""


class WatchedCall(Call):
    """A call that is told when it has taken `patience_s`, not counting `credit_s` in which nothing could be seen."""

    __slots__ = ("credit_s", "patience_s")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], patience_s: float) -> None:
        super().__init__(function, args)
        self.patience_s = patience_s
        self.credit_s = 0.0

    @property
    @abstractmethod
    def number(self) -> int:
        """The drive it is on at this moment."""

    @abstractmethod
    def late(self, age_s: float) -> None:
        """In the loop: patience is over. It is set anew for the next time, or the call taken out of the watch.

        With `ended_s` the call has ended, too late, and the loop is about to hear of it.
        """


class Watch:
    """`run` is a system task, from `start` to `close`. Otherwise for the loop."""

    def __init__(self) -> None:
        self._calls: set[WatchedCall] = set()
        self._parked: trio.Event | None = None
        self._scope = trio.CancelScope()
        self.discard = self._calls.discard

    def start(self) -> None:
        trio.lowlevel.spawn_system_task(self._run, name="watch over drives")

    def close(self) -> None:
        self._scope.cancel()

    def add(self, call: WatchedCall) -> None:
        """Watch a call; its time counts from when a thread begins it."""
        self._calls.add(call)
        if self._parked is not None:
            self._parked.set()
            self._parked = None

    def older_than(self, age_s: float) -> list[WatchedCall]:
        """The calls under way that have taken longer than this."""
        now = clock.monotonic_s()
        return [
            call for call in self._calls if call.started_s and not call.ended_s and _age(call, now) > age_s
        ]

    async def _run(self) -> None:
        with self._scope:
            idle = 0
            while True:
                idle = 0 if self._calls else idle + 1
                if idle > IDLE_TICKS_MAX:
                    self._parked = trio.Event()
                    await self._parked.wait()
                    idle = 0
                pause = self._pause_s()
                due = clock.monotonic_s() + pause
                await trio.sleep(pause)
                self.look(due)

    def _pause_s(self) -> float:
        """Until the first of the calls is late, if that is before the next tick."""
        now = clock.monotonic_s()
        pause = TICK_S
        for call in self._calls:
            if call.started_s and not call.ended_s:
                pause = min(pause, call.patience_s - _age(call, now))
        return max(pause, PAUSE_S_MIN)

    def look(self, due: float) -> None:
        """Tell the calls whose patience is over; `due` is when this should have been called.

        A call that has ended in its thread is as old as it was then, however long the loop had no time to hear of it.
        """
        now = clock.monotonic_s()
        if now - due > STALL_S:
            for call in self._calls:
                call.credit_s += now - due
            return
        late = [call for call in self._calls if call.started_s and _age(call, now) >= call.patience_s]
        for call in late:
            age_s = _age(call, now)
            if age_s >= call.patience_s and call in self._calls:
                try:
                    call.late(age_s)
                except Exception:  # our bug: the call goes unwatched, which is better than no mount
                    log.exception("a late call on drive %d is not watched any more", call.number)
                    self._calls.discard(call)


def _age(call: WatchedCall, now: float) -> float:
    return (call.ended_s or now) - call.started_s - call.credit_s
