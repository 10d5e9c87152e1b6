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

from ciaosfs.base import clock, limits
from ciaosfs.drive.workers import Call, Workers

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
    """A system task, from `start` until after `close`. Otherwise for the loop."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._calls: set[WatchedCall] = set()
        self._parked: trio.Event | None = None
        self._is_closing = False
        self.discard = self._calls.discard

    def start(self) -> None:
        trio.lowlevel.spawn_system_task(self._run, name="watch over drives")

    def close(self) -> None:
        """Tell no call any more that it is late.

        Those under way, which nobody waits for, are written off when they are old enough, so that leaving the threads' pool
        waits for those that answer, and not for a drive that does not. When none is left the task ends.
        """
        self._is_closing = True
        self._wake()

    def add(self, call: WatchedCall) -> None:
        """Watch a call; its time counts from when a thread begins it."""
        self._calls.add(call)
        self._wake()

    def _wake(self) -> None:
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
        idle = 0
        while not self._is_closing:
            idle = 0 if self._calls else idle + 1
            if idle > IDLE_TICKS_MAX:
                self._parked = trio.Event()
                await self._parked.wait()
                idle = 0
                continue
            pause = self._pause_s()
            due = clock.monotonic_s() + pause
            await trio.sleep(pause)
            if not self._is_closing:
                self.look(due)
        while any(not call.is_written_off for call in self._calls):
            self._write_off()
            await trio.sleep(TICK_S)

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

    def _write_off(self) -> None:
        for call in self.older_than(limits.WRITE_OFF_S):
            if not call.is_written_off:
                self._workers.write_off(call)


def _age(call: WatchedCall, now: float) -> float:
    return (call.ended_s or now) - call.started_s - call.credit_s
