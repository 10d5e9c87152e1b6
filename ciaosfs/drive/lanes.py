"""The calls under way on one drive, and what they say about it.

A *lane* lets `DRIVE_READS_MAX` reads into threads at a time; others queue. A call that passes the deadline is *given
up*: whoever waited for it is told that the drive hangs, and its thread is left behind, to come back or not. As long as
it has not come back the drive *hangs*, and every other call fails at once. So a drive that stops answering holds no more
threads than had calls in it at that moment.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import outcome
import trio

from ciaosfs.base import clock, limits
from ciaosfs.base.errors import DriveHangsError
from ciaosfs.drive.patience import Patience
from ciaosfs.drive.watch import Watch, WatchedCall
from ciaosfs.drive.workers import Workers

PROBE_S = 0.5
"""How often a drive that lags is asked all the same, to see whether it still does."""
LATE_CLOGGING = limits.DRIVE_READS_MAX // 2
"""When so many of the reads in a full lane are late, those that queue behind them are as good as late."""


class ReadOwner(Protocol):
    """Who waits for reads. Both are called in the loop and must not raise."""

    def read_ended(self, call: ReadCall) -> None:
        """`call.result` is there: bytes, the drive's error, or DriveHangsError."""

    def read_late(self, call: ReadCall) -> bool:
        """The drive lags. False when nothing could be done about it yet: to be told again."""


class LaneKeeper(Protocol):
    """What lanes have in common; see `calls.DriveCalls`."""

    workers: Workers
    watch: Watch

    def deadline_s(self, number: int) -> float: ...

    def look_at_peers(self) -> None: ...

    def hangs(self, lane: Lane) -> None: ...


class ReadCall(WatchedCall):
    """One read under way on one drive."""

    __slots__ = ("is_answered_for", "is_given_up", "is_late", "lane", "length", "owner", "task")

    def __init__(
        self, lane: Lane, owner: ReadOwner, length: int, function: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        super().__init__(function, args, 0.0)
        self.lane = lane
        self.owner: ReadOwner | None = owner
        self.length = length
        self.is_late = False
        self.is_given_up = False
        self.is_answered_for = False
        """The owner does something about its lateness."""
        self.task: trio.lowlevel.Task | None = None
        """For the owner's use: who waits for this read alone."""

    @property
    def number(self) -> int:
        return self.lane.number

    def ended(self) -> None:
        self.lane.read_ended(self)

    def late(self, age_s: float) -> None:
        self.lane.read_late(self, age_s)

    def let_go(self) -> None:
        """Nobody waits any more. A read that a thread has begun goes on by itself, and is timed."""
        self.owner = None
        self.lane.let_go(self)

    def abort(self, _: Callable[[], None]) -> trio.lowlevel.Abort:
        """The task that waits for this read alone is cancelled."""
        self.let_go()
        return trio.lowlevel.Abort.SUCCEEDED

    def tell(self) -> None:
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.read_ended(self)


class Lane:
    """One drive's. For the loop."""

    def __init__(self, number: int, keeper: LaneKeeper) -> None:
        self.number = number
        self.patience = Patience()
        self.page_cache_only_until_s = 0.0
        """Until then nobody tries to read past the page cache: the drive could not, when last asked."""
        self._keeper = keeper
        self._running = 0
        self._late = 0
        self._given_up = 0
        self._queue: deque[ReadCall] = deque()
        self._probe_at_s = 0.0

    @property
    def hangs(self) -> bool:
        """Whether a call was given up and has not come back."""
        return self._given_up > 0

    @property
    def running(self) -> int:
        """Reads under way in threads."""
        return self._running

    @property
    def has_late(self) -> bool:
        """Whether a read under way has passed its bound."""
        return self._late > 0 or self._given_up > 0

    @property
    def is_clogged(self) -> bool:
        """Whether a read would wait behind late ones."""
        return self._running >= limits.DRIVE_READS_MAX and self._late >= LATE_CLOGGING

    @property
    def is_to_be_avoided(self) -> bool:
        """Whether it is better not to read here."""
        return self.patience.lags or self._given_up > 0 or self.is_clogged

    def hangs_error(self) -> DriveHangsError:
        return DriveHangsError(f"Drive {self.number} does not answer.")

    def take_probe(self) -> bool:
        """Whether a drive that is avoided should be asked now all the same."""
        now = clock.monotonic_s()
        if self._given_up or self._late or now < self._probe_at_s:
            return False
        self._probe_at_s = now + PROBE_S
        return True

    # Reads

    def read(
        self, owner: ReadOwner, length: int, function: Callable[..., Any], args: tuple[Any, ...]
    ) -> ReadCall:
        """Begin a read of `length` bytes, or put it in the queue. Raises DriveHangsError when the drive hangs."""
        if self._given_up:
            raise self.hangs_error()
        call = ReadCall(self, owner, length, function, args)
        if self._running < limits.DRIVE_READS_MAX:
            self._begin(call)
        else:
            self._queue.append(call)
        return call

    def _begin(self, call: ReadCall) -> None:
        self._running += 1
        call.patience_s = self.patience.bound_s(call.length)
        self._keeper.workers.submit(call)
        self._keeper.watch.add(call)

    def _begin_next(self) -> None:
        while self._queue and self._running < limits.DRIVE_READS_MAX and not self._given_up:
            self._begin(self._queue.popleft())

    def read_ended(self, call: ReadCall) -> None:
        """In the loop, from the threads."""
        if call.is_given_up:
            self.came_back()
            return
        self._leave(call)
        is_answer = isinstance(call.result, outcome.Value)
        if is_answer and self.patience.answered(call.length, call.ended_s - call.started_s):
            self._keeper.look_at_peers()
        if not call.is_late:
            self.patience.was_in_time()
        call.tell()
        self._begin_next()

    def _leave(self, call: ReadCall) -> None:
        self._keeper.watch.discard(call)
        self._running -= 1
        self._late -= call.is_late

    def let_go(self, call: ReadCall) -> None:
        if call in self._queue:
            self._queue.remove(call)
        elif self._keeper.workers.withdraw(call):
            self._leave(call)
            self._begin_next()

    def read_late(self, call: ReadCall, age_s: float) -> None:
        """From the watch, when the bound is passed, and then again and again."""
        if not call.is_late:
            call.is_late = True
            self._late += 1
            self.patience.was_late()
        if call.ended_s:  # the answer is on its way: there is nothing left to do about it
            call.patience_s = math.inf
            return
        if age_s >= limits.WRITE_OFF_S and not call.is_written_off:
            self._keeper.workers.write_off(call)
        deadline = self._keeper.deadline_s(self.number)
        if age_s >= deadline:
            self._give_up(call)
            return
        if not call.is_answered_for:
            call.is_answered_for = call.owner is None or call.owner.read_late(call)
        call.patience_s = next_look_s(call, age_s, deadline)
        if not call.is_answered_for:
            call.patience_s = min(call.patience_s, max(2 * age_s, limits.READ_LATE_S_MIN))
        if self.is_clogged:
            for waiting in list(self._queue):
                if not waiting.is_answered_for:
                    waiting.is_answered_for = waiting.owner is None or waiting.owner.read_late(waiting)

    # Hanging

    def _give_up(self, call: ReadCall) -> None:
        self._leave(call)
        call.is_given_up = True
        call.result = outcome.Error(self.hangs_error())
        self.gave_up()
        call.tell()

    def gave_up(self) -> None:
        """A call passed the deadline; whoever queues is told at once."""
        self._given_up += 1
        if self._given_up == 1:
            self._keeper.hangs(self)
        queue, self._queue = self._queue, deque()
        for call in queue:
            call.result = outcome.Error(self.hangs_error())
            call.tell()

    def came_back(self) -> None:
        """A call that was given up has ended after all."""
        self._given_up -= 1
        self._begin_next()


def next_look_s(call: WatchedCall, age_s: float, deadline_s: float) -> float:
    """The age at which a late call deserves another look: when its thread is to be written off, when a second has gone
    by (on a drive that hangs already, that is the deadline), and then every second until the deadline."""
    if not call.is_written_off:
        return limits.WRITE_OFF_S
    return min(age_s + limits.DRIVE_HANGING_S, max(deadline_s, age_s))
