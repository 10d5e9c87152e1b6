"""Calls on drives that do not end before they are told to, and who waits for them."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from ciaosfs.base import limits
from ciaosfs.drive.calls import DriveCalls
from ciaosfs.drive.lanes import ReadCall
from ciaosfs.drive.workers import Workers

PATIENCE_S = 20.0


def shorten_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drive that does not answer is given up soon."""
    monkeypatch.setattr(limits, "DRIVE_DEADLINE_S", 0.3)
    monkeypatch.setattr(limits, "DRIVE_DEADLINE_S_MAX", 0.9)
    monkeypatch.setattr(limits, "DRIVE_HANGING_S", 0.1)
    monkeypatch.setattr(limits, "WRITE_OFF_S", 0.05)
    monkeypatch.setattr(limits, "READ_LATE_S_FIRST", 0.02)


class Stuck:
    """A call that ends when it is told to."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.entered = 0

    def __call__(self) -> str:
        self.entered += 1
        assert self.let_go.wait(PATIENCE_S)
        return "at last"


class Bench:
    """The calls of a store that can spare `spare` drives, and which it was told hang."""

    def __init__(self, calls: DriveCalls, workers: Workers) -> None:
        self.calls = calls
        self.workers = workers
        self.hung: list[int] = []
        self.spare = 2


@asynccontextmanager
async def bench(threads_max: int = limits.WORKER_THREADS_MAX, spare: int = 2) -> AsyncIterator[Bench]:
    async with Workers(threads_max) as workers:
        made: list[Bench] = []
        calls = DriveCalls(
            workers,
            spare,
            lambda number: len({*made[0].hung, number}) <= made[0].spare,
            lambda number, reason: made[0].hung.append(number),
        )
        made.append(Bench(calls, workers))
        made[0].spare = spare
        calls.start()
        try:
            yield made[0]
        finally:
            calls.close()


class Owner:
    """Notes what it is told."""

    def __init__(self, may_act: Callable[[], bool] = lambda: True) -> None:
        self.ended: list[ReadCall] = []
        self.late: list[ReadCall] = []
        self._may_act = may_act

    def read_ended(self, call: ReadCall) -> None:
        self.ended.append(call)

    def read_late(self, call: ReadCall) -> bool:
        self.late.append(call)
        return self._may_act()
