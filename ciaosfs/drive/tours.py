"""Calls on several drives, made one after the other by one thread, and what happens when one of them hangs.

A thread hop costs more than a write to the page cache, so a stripe's shards are written, and volumes synced, in one
thread. When a step passes the deadline the thread is left behind with it, and another one does the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import outcome
import trio

from ciaosfs.base import clock, limits
from ciaosfs.base.errors import DriveGoneError
from ciaosfs.drive.lanes import Lane, LaneKeeper, next_look_s
from ciaosfs.drive.watch import WatchedCall


@dataclass(frozen=True, slots=True)
class Step:
    """One blocking call on one drive.

    `release` is called in the loop when no thread is in the call any more, exactly once, whatever came of it: at once
    nearly always, and when a call that was given up comes back. `undo` is called in the thread with what such a call has
    returned, which nobody takes any more.
    """

    number: int
    function: Callable[[], Any]
    release: Callable[[], None] | None = None
    undo: Callable[[Any], None] | None = None


class Tour(WatchedCall):
    """Steps under way in one thread. `results` holds an outcome for each that has ended."""

    __slots__ = ("_at", "_is_left", "_keeper", "_lanes", "_lock", "_steps", "given_up_at", "results", "task")

    def __init__(self, keeper: LaneKeeper, steps: Sequence[Step], lanes: Sequence[Lane]) -> None:
        super().__init__(self._walk, (), limits.WRITE_OFF_S)
        self._keeper = keeper
        self._steps = steps
        self._lanes = lanes
        self._at = 0
        self._is_left = False
        self._lock = threading.Lock()
        self.results: list[outcome.Outcome[Any] | None] = [None] * len(steps)
        self.given_up_at: int | None = None
        self.task: trio.lowlevel.Task | None = None

    def _walk(self) -> None:
        """In the thread."""
        for at, step in enumerate(self._steps):
            result = outcome.capture(step.function)
            with self._lock:
                if not self._is_left:
                    self.results[at] = result
                    self._at = at + 1
                    self.started_s = clock.monotonic_s()
                    continue
            if step.undo is not None and isinstance(result, outcome.Value):
                step.undo(result.value)
            return

    @property
    def number(self) -> int:
        return self._steps[min(self._at, len(self._steps) - 1)].number

    def ended(self) -> None:
        if self.given_up_at is None:
            self._keeper.watch.discard(self)
            assert self.task is not None
            trio.lowlevel.reschedule(self.task)
            return
        # The thread is back from the step it was left in, too late.
        release = self._steps[self.given_up_at].release
        if release is not None:
            release()
        self._lanes[self.given_up_at].came_back()

    def late(self, age_s: float) -> None:
        if self._at >= len(self._steps):
            return  # it has ended, and we are about to hear of it
        if not self.is_written_off:
            self._keeper.workers.write_off(self)
        number = self._steps[self._at].number
        deadline = self._keeper.deadline_s(number)
        if age_s >= deadline and self._leave(number):
            return
        self.patience_s = next_look_s(self, age_s, deadline)

    def _leave(self, number: int) -> bool:
        """Leave the thread behind; False when it has just gone on."""
        with self._lock:
            at = self._at
            if at >= len(self._steps) or self._steps[at].number != number or self.results[at] is not None:
                return False
            self._is_left = True
        self.given_up_at = at
        self._keeper.watch.discard(self)
        self._lanes[at].gave_up()
        assert self.task is not None
        trio.lowlevel.reschedule(self.task)
        return True


async def take_tour(
    keeper: LaneKeeper, steps: Sequence[Step], lanes: Sequence[Lane]
) -> list[outcome.Outcome[Any]]:
    """Make all calls; returns an outcome for each, DriveHangsError for those that were given up or not even begun.

    Cancelled before a thread took it: nothing is called, and Cancelled is raised. Cancelled later: goes on to its end.
    """
    results: list[outcome.Outcome[Any]] = [outcome.Error(lane.hangs_error()) for lane in lanes]
    todo = list(range(len(steps)))
    while True:
        for index in todo:
            if lanes[index].hangs:
                _release(steps[index])
        todo = [index for index in todo if not lanes[index].hangs]
        if not todo:
            return results
        tour = Tour(keeper, [steps[index] for index in todo], [lanes[index] for index in todo])
        try:
            await _walked(keeper, tour)
        except BaseException:
            for index in todo:
                _release(steps[index])
            raise
        for index, result in zip(todo, tour.results, strict=True):
            if result is not None:
                results[index] = result
                _release(steps[index])
        if tour.given_up_at is None:
            return results
        todo = todo[tour.given_up_at + 1 :]


def raise_unexpected(results: Sequence[outcome.Outcome[Any]]) -> None:
    """Raise the first error that is neither the device's nor its absence: our bug, or a crash that a test plays."""
    for result in results:
        if isinstance(result, outcome.Error) and not isinstance(result.error, (OSError, DriveGoneError)):
            raise result.error


async def _walked(keeper: LaneKeeper, tour: Tour) -> None:
    """Wait until the tour has ended or was left."""
    await trio.lowlevel.checkpoint_if_cancelled()
    tour.task = trio.lowlevel.current_task()
    keeper.workers.submit(tour)
    keeper.watch.add(tour)

    def abort(_: Callable[[], None]) -> trio.lowlevel.Abort:
        if not keeper.workers.withdraw(tour):
            return trio.lowlevel.Abort.FAILED
        keeper.watch.discard(tour)
        return trio.lowlevel.Abort.SUCCEEDED

    await trio.lowlevel.wait_task_rescheduled(abort)


def _release(step: Step) -> None:
    if step.release is not None:
        step.release()
