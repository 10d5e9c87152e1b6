"""Threads for calls that block: file I/O, coding, compression, at half the cost of `trio.to_thread`.

What makes the difference: threads wait in a C queue, the loop is woken through one eventfd by whichever
result is first while it sleeps, and no context variables, limiters or cancel scopes come along. So a call
must not use `trio.from_thread`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar, TypeVarTuple, cast

import outcome
import trio

from ciaosfs.base.limits import WORKER_THREADS_MAX

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """A moment of a `Workers`: threads that exist, calls that run, calls that wait for a thread."""

    threads: int
    running: int
    queued: int


_NOT_ENDED: outcome.Outcome[Any] = outcome.Error(AssertionError("the call has not ended"))


class _Job:
    """One call: what to do, the task that waits, and the right to start it, which is taken exactly once."""

    __slots__ = ("args", "claim", "function", "result", "task")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], task: trio.lowlevel.Task) -> None:
        self.function = function
        self.args = args
        self.task = task
        self.claim = [True]
        self.result = _NOT_ENDED


class Workers:
    """A pool of threads for blocking calls, an async context manager.

    Leaving it waits for every call that was accepted, whatever is cancelled meanwhile, and joins every
    thread. All methods are for the loop's thread.
    """

    def __init__(self, threads_max: int = WORKER_THREADS_MAX, name: str = "ciaos-worker") -> None:
        """At most `threads_max` calls run at once, in threads called `name`-1, `name`-2, ..."""
        assert threads_max >= 1
        self._threads_max = threads_max
        self._name = name
        self._threads: list[threading.Thread] = []
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: deque[_Job] = deque()
        self._wake_descriptor = -1
        self._wake_pending = False
        self._unfinished = 0
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
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()  # at once: every call has ended
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
        if self._unfinished >= len(self._threads) < self._threads_max:
            self._start_thread()
        job = _Job(function, args, trio.lowlevel.current_task())
        self._unfinished += 1
        self._jobs.put(job)

        def abort(_: Callable[[], None]) -> trio.lowlevel.Abort:
            try:
                job.claim.pop()
            except IndexError:
                return trio.lowlevel.Abort.FAILED
            self._count_finished()
            return trio.lowlevel.Abort.SUCCEEDED

        return cast(T, await trio.lowlevel.wait_task_rescheduled(abort))

    def statistics(self) -> WorkerStatistics:
        """Return how busy the pool is."""
        running = min(self._unfinished, len(self._threads))
        return WorkerStatistics(len(self._threads), running, self._unfinished - running)

    def _start_thread(self) -> None:
        # Daemon threads: a call stuck in a dead device must not keep a dying process from exiting.
        name = f"{self._name}-{len(self._threads) + 1}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        """What each thread does until it is handed None."""
        while (job := self._jobs.get()) is not None:
            try:
                job.claim.pop()
            except IndexError:
                continue  # cancelled while it waited
            job.result = outcome.capture(job.function, *job.args)
            self._done.append(job)
            # The loop clears the flag before it empties `_done`: what was appended before a look at a set
            # flag is taken by the delivery that the flag stands for.
            if not self._wake_pending:
                self._wake_pending = True
                os.eventfd_write(self._wake_descriptor, 1)
            del job  # it may hold buffers: not to be kept while waiting for the next call

    async def _deliver(self) -> None:
        """Wake the tasks whose calls have ended, until the pool is left."""
        done = self._done
        while self._running or self._unfinished:
            await trio.lowlevel.wait_readable(self._wake_descriptor)
            os.eventfd_read(self._wake_descriptor)
            self._wake_pending = False
            while done:
                job = done.popleft()
                self._count_finished()
                trio.lowlevel.reschedule(job.task, job.result)
                del job
        self._delivery_ended.set()

    def _count_finished(self) -> None:
        self._unfinished -= 1
        if not self._unfinished and not self._running:
            self._all_finished.set()
