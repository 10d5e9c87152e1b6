"""Threads for calls that block: file I/O, coding, compression, at half the cost of `trio.to_thread`.

What makes the difference: threads wait in a C queue, the loop is woken through one eventfd by whichever
result is first while it sleeps, and no context variables, limiters or cancel scopes come along. So a call
must not use `trio.from_thread`.

A call may hang in a dead device for ever. Who knows that it may *writes it off* after a while: its thread counts
as the pool's no more, another one may be started in its place, and leaving the pool does not wait for it.
"""

from __future__ import annotations

import itertools
import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar, TypeVarTuple, cast

import outcome
import trio

from ciaosfs.base import clock
from ciaosfs.base.limits import WORKER_THREADS_MAX

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """A moment of a `Workers`: threads that exist, calls that run, calls that wait for a thread, and among the threads
    those in calls that were written off."""

    threads: int
    running: int
    queued: int
    written_off: int = 0


_NOT_ENDED: outcome.Outcome[Any] = outcome.Error(AssertionError("the call has not ended"))


class Call(ABC):
    """One call: what to do, what came of it, and the right to start it, which is taken exactly once.

    `started_s` and `ended_s` are monotonic times taken by the thread, 0 before that.
    """

    __slots__ = ("args", "claim", "ended_s", "function", "is_written_off", "result", "started_s", "thread")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.function = function
        self.args = args
        self.claim = [True]
        self.result = _NOT_ENDED
        self.started_s = 0.0
        self.ended_s = 0.0
        self.is_written_off = False
        self.thread = -1

    @abstractmethod
    def ended(self) -> None:
        """In the loop: `result` is there. Must not raise. Not called once the pool was left."""

    def forget_function(self) -> None:
        """It will not be called again. A call whose function is its own method would else live on, with the buffers it was
        given, until the collector of cycles comes by: hundreds of MiB under load."""
        self.function = _forgotten
        self.args = ()


def _forgotten() -> None:
    raise AssertionError("the call was made, or withdrawn")


class _TaskCall(Call):
    """A call that one task waits for."""

    __slots__ = ("task",)

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], task: trio.lowlevel.Task) -> None:
        super().__init__(function, args)
        self.task = task

    def ended(self) -> None:
        trio.lowlevel.reschedule(self.task, self.result)


class Workers:
    """A pool of threads for blocking calls, an async context manager.

    Leaving it waits for every call that was accepted and not written off, whatever is cancelled meanwhile, and joins
    their threads. All methods are for the loop's thread.
    """

    def __init__(self, threads_max: int = WORKER_THREADS_MAX, name: str = "ciaos-worker") -> None:
        """At most `threads_max` calls run at once, besides those written off, in threads called `name`-1, ..."""
        assert threads_max >= 1
        self._threads_max = threads_max
        self._name = name
        self._threads: dict[int, threading.Thread] = {}
        self._thread_count = 0
        """Threads that were started and not told to end."""
        self._numbers = itertools.count(1)
        self._jobs: SimpleQueue[Call | None] = SimpleQueue()
        self._done: deque[Call] = deque()
        self._wake_descriptor = -1
        self._wake_pending = False
        self._unfinished = 0
        self._written_off: set[Call] = set()
        self._running = False
        self._all_finished = trio.Event()
        self._delivery_ended = trio.Event()

    async def __aenter__(self) -> Workers:
        assert self._wake_descriptor < 0 and not self._delivery_ended.is_set(), "a Workers is entered once"
        self._wake_descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._running = True
        # A system task: delivery goes on while everything of the user's is being cancelled.
        trio.lowlevel.spawn_system_task(self._deliver, name=f"results of {self._name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running = False
        with trio.CancelScope(shield=True):
            if self._unfinished:
                await self._all_finished.wait()
            os.eventfd_write(self._wake_descriptor, 1)
            await self._delivery_ended.wait()
        lost = {call.thread for call in self._written_off}
        for _ in range(self._thread_count):
            self._jobs.put(None)
        for number, thread in list(self._threads.items()):
            if number not in lost:
                thread.join()  # at once: every call has ended
        if not lost:  # else it is left to the end of the process: a thread that comes back would write to it
            os.close(self._wake_descriptor)

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call `function(*args)` in a thread and return its result or raise its exception.

        Cancelled before a thread took the call: it never runs, and Cancelled is raised. Cancelled later:
        waits for the call to end and returns its result, so that no thread uses a buffer its owner believes
        free. Raises trio.ClosedResourceError outside of the pool's `async with` block.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._running:
            raise trio.ClosedResourceError("the worker threads are not running")
        call = _TaskCall(function, args, trio.lowlevel.current_task())
        self._put(call)

        def abort(_: Callable[[], None]) -> trio.lowlevel.Abort:
            if self.withdraw(call):
                return trio.lowlevel.Abort.SUCCEEDED
            return trio.lowlevel.Abort.FAILED

        return cast(T, await trio.lowlevel.wait_task_rescheduled(abort))

    def submit(self, call: Call) -> None:
        """Have a call made, without waiting for it: `call.ended` is called in the loop.

        Raises trio.ClosedResourceError as `run`.
        """
        if not self._running:
            raise trio.ClosedResourceError("the worker threads are not running")
        self._put(call)

    def withdraw(self, call: Call) -> bool:
        """Take back a call that no thread has begun: it never runs, and never ends. False when it is too late."""
        try:
            call.claim.pop()
        except IndexError:
            return False
        call.forget_function()
        self._count_finished()
        return True

    def write_off(self, call: Call) -> None:
        """Count a submitted call that was begun as nobody's; `ended` is called all the same if it ever ends."""
        assert not call.is_written_off and call.started_s
        call.is_written_off = True
        self._written_off.add(call)
        self._count_finished()
        if self._unfinished > self._own_threads:
            self._start_thread()  # for who waits in the queue

    def _put(self, call: Call) -> None:
        if self._unfinished >= self._own_threads < self._threads_max:
            self._start_thread()
        self._unfinished += 1
        self._jobs.put(call)

    @property
    def is_awaited(self) -> bool:
        """Whether a call is under way or queued. Cheap."""
        return self._unfinished > 0

    @property
    def _own_threads(self) -> int:
        return self._thread_count - len(self._written_off)

    def statistics(self) -> WorkerStatistics:
        """Return how busy the pool is."""
        running = min(self._unfinished, self._own_threads)
        queued = self._unfinished - running
        return WorkerStatistics(self._thread_count, running, queued, len(self._written_off))

    def _start_thread(self) -> None:
        # Daemon threads: a call stuck in a dead device must not keep a dying process from exiting.
        number = next(self._numbers)
        thread = threading.Thread(
            target=self._work, args=(number,), name=f"{self._name}-{number}", daemon=True
        )
        self._threads[number] = thread
        self._thread_count += 1
        thread.start()

    def _work(self, number: int) -> None:
        """What each thread does until it is handed None."""
        while (call := self._jobs.get()) is not None:
            try:
                call.claim.pop()
            except IndexError:
                continue  # withdrawn while it waited
            call.thread = number
            call.started_s = clock.monotonic_s()
            call.result = outcome.capture(call.function, *call.args)
            call.ended_s = clock.monotonic_s()
            self._done.append(call)
            # The loop clears the flag before it empties `_done`: what was appended before a look at a set
            # flag is taken by the delivery that the flag stands for.
            if not self._wake_pending:
                self._wake_pending = True
                os.eventfd_write(self._wake_descriptor, 1)
            del call  # it may hold buffers: not to be kept while waiting for the next call
        if self._running:
            del self._threads[number]  # superfluous; at the end the pool joins those that are left

    async def _deliver(self) -> None:
        """Tell those whose calls have ended, until the pool is left."""
        done = self._done
        while self._running or self._unfinished:
            await trio.lowlevel.wait_readable(self._wake_descriptor)
            os.eventfd_read(self._wake_descriptor)
            self._wake_pending = False
            while done:
                call = done.popleft()
                if call.is_written_off:
                    self._came_back(call)
                else:
                    self._count_finished()
                call.ended()
                call.forget_function()  # not before: until it is told of its end a call may be asked what it is
                del call
        self._delivery_ended.set()

    def _came_back(self, call: Call) -> None:
        """A call that was written off has ended: its thread is the pool's again, or superfluous."""
        self._written_off.discard(call)
        if self._own_threads > self._threads_max:
            self._thread_count -= 1
            self._jobs.put(None)  # whichever takes it ends: they are all alike

    def _count_finished(self) -> None:
        self._unfinished -= 1
        if not self._unfinished and not self._running:
            self._all_finished.set()
