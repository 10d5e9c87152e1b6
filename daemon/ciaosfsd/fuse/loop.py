"""The request loop's pace: a stand-in for the `trio` module that pyfuse3 looks up in its own attribute.

pyfuse3's workers queue on one lock; the holder waits for `/dev/fuse` to become readable, receives one request,
gives the lock up and runs the handler. Played by trio's own Lock and `wait_readable` this costs two or more
scheduler rounds and an epoll call for every request. The stand-in keeps one worker running as long as there are
requests:

- `wait_readable` asks poll(2) first. While requests come, nothing yields, except that after `REQUESTS_MAX`
  requests or `STINT_S` one real checkpoint lets background jobs, the control socket and blocked handlers go on.
- When nothing is there and no handler is waiting for something, the thread waits a while before it parks in trio,
  because a process that makes one call after the other sends its next request at once (`waiting`).
- `UnfairLock` wakes a waiter only when a task step has ended with the lock free, which is when the running
  worker's handler blocks or the worker ends. So a handler that waits never holds up another request, and a
  worker that does not wait never pays for a hand-over.

Measured with an in-memory file system and a C client, requests per second (lookups of names that are not there):
client and daemon on one processor 46,000 with the plain loop and 110,000 with this one; on two, 11,000 with the
plain loop, 9,000 with poll and select alone, 29,000 with spinning.

**The request that is not there.** Between poll and read the kernel may withdraw a request (its process was
killed), and a read from a blocking descriptor would then hold the loop, and the interpreter lock with it, until
the next request. Therefore the descriptor is made non-blocking; read then fails with EAGAIN, which ends
pyfuse3's session loop with an OSError. The nursery handed to pyfuse3 starts each worker under `_supervised`,
which starts it anew. What that costs is the receive buffer pyfuse3 did not free: 1 MiB of address space, of
which only what was received is resident, for each process killed in a window of about ten microseconds. The
same supervision keeps the mount up when anything else escapes from a worker.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType

import trio

from ciaosfsd.fuse.awake import Awake
from ciaosfsd.fuse.waiting import Waiting

log = logging.getLogger(__name__)

REQUESTS_MAX = 32
"""Requests between two checkpoints. A checkpoint costs about half a request, so this spends 2 % on fairness."""
STINT_S = 0.001
"""Time between two checkpoints, when requests are slow ones."""
ESCAPES_MAX = 100
ESCAPES_WINDOW_S = 60.0
"""As many workers ended by something that escaped within this time are no accident: the mount is given up."""


class UnfairLock:
    """A lock whose release wakes nobody; waiters go first come, first served when a task step ends with it free.

    `waiting` counts the tasks that queue. Not reentrant; cancellation leaves the queue.
    """

    def __init__(self) -> None:
        self.held = False
        self._queue: deque[trio.lowlevel.Task] = deque()
        self._woken: trio.lowlevel.Task | None = None

    @property
    def waiting(self) -> int:
        return len(self._queue) + (self._woken is not None)

    async def __aenter__(self) -> None:
        if self.held:
            await self._wait_free()
        self.held = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.held = False

    async def _wait_free(self) -> None:
        task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._queue.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._queue.append(task)
        while True:
            await trio.lowlevel.wait_task_rescheduled(abort)
            self._woken = None
            if not self.held:
                return
            self._queue.appendleft(task)

    def hand_over(self) -> None:
        """Wake the first waiter when the lock is free and nobody is on the way to it. Called between task steps."""
        if not self.held and self._woken is None and self._queue:
            self._woken = self._queue.popleft()
            trio.lowlevel.reschedule(self._woken)


class _HandOver(trio.abc.Instrument):
    """Calls `hand_over` after every task step; trio drops an instrument that raises, so it must not."""

    def __init__(self, lock: UnfairLock) -> None:
        self._lock = lock

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        lock = self._lock
        if not lock.held and lock._queue:
            lock.hand_over()


class Loop:
    """What pyfuse3 sees as its `trio` module, for one session. Install with `pyfuse3.trio = Loop()` before init.

    The instance is its own `lowlevel`, as in pyfuse3's asyncio layer. `requests`, `parked`, `vanished` and `escaped`
    count what happened.
    """

    ClosedResourceError = trio.ClosedResourceError
    from_thread = trio.from_thread
    current_task = staticmethod(trio.lowlevel.current_task)
    current_trio_token = staticmethod(trio.lowlevel.current_trio_token)

    def __init__(
        self,
        *,
        waiting: Waiting | None = None,
        settle: Callable[[], None] = lambda: None,
        is_awaited: Callable[[], bool] = lambda: False,
        awake: Awake | None = None,
    ) -> None:
        """`waiting` is how it waits for requests. `settle` is called before the loop parks: what was left to idle moments
        is to be done, for there may be none. `is_awaited` says whether others than handlers wait for threads, whose
        results trio's own loop delivers: then nothing lingers. `awake` is told the pace of requests."""
        self.lowlevel = self
        self.requests = 0
        self.parked = 0
        self.vanished = 0
        self.escaped = 0
        self._lock = UnfairLock()
        self._instrument = _HandOver(self._lock)
        self._waiting = waiting or Waiting()
        self._settle = settle
        self._is_awaited = is_awaited
        self.awake = awake or Awake(-1, 0)
        self._workers = 0
        self._fd = -1
        self._left = REQUESTS_MAX
        self._stint_end = 0.0
        self._closed = False
        self._escapes: deque[float] = deque(maxlen=ESCAPES_MAX)

    def Lock(self) -> UnfairLock:
        """The one lock of the session's workers."""
        return self._lock

    def open_nursery(self) -> _WorkerNursery:
        """The nursery in which pyfuse3 runs its workers."""
        return _WorkerNursery(self)

    def notify_closing(self, fd: int) -> None:
        """Wake the worker that waits for `fd`; it ends, and the others end one after the other behind it."""
        self._closed = True
        trio.lowlevel.notify_closing(fd)

    async def wait_readable(self, fd: int) -> None:
        """Return when `fd` probably has a request. Raises trio.ClosedResourceError after `notify_closing`."""
        if fd != self._fd:
            self._adopt(fd)
        self._left -= 1
        if self._left < 0 or time.monotonic() > self._stint_end:
            await trio.lowlevel.checkpoint()
            self._renew()
            if self._closed:  # meanwhile, and nobody was parked to be told
                raise trio.ClosedResourceError("the session ends")
        if not self._waiting.is_there() and not self._linger():
            self.parked += 1
            self._settle()
            await trio.lowlevel.wait_readable(fd)
            self._renew()
        self.requests += 1

    def _linger(self) -> bool:
        # A worker that neither queues nor is the caller waits inside a handler, perhaps for a thread whose
        # answer only trio's own loop can deliver.
        if not self._waiting.lingers or self._lock.waiting + 1 < self._workers or self._is_awaited():
            return False
        return self._waiting.wait()

    def _renew(self) -> None:
        now = time.monotonic()
        self._left = REQUESTS_MAX
        self._stint_end = now + STINT_S
        self.awake.look(self.requests, now)

    def _adopt(self, fd: int) -> None:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
        self._waiting.adopt(fd)
        self._fd = fd

    async def _supervised(self, worker: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run one worker, again and again while what ends it is no reason to end the mount."""
        self._workers += 1
        try:
            while True:
                try:
                    await worker(*args)
                except OSError as error:
                    if error.errno == errno.EAGAIN:
                        self.vanished += 1
                    else:
                        await self._escape(error)
                except Exception as error:  # noqa: BLE001 - the last net under the mount, see _escape
                    await self._escape(error)
                else:
                    return
        finally:
            self._workers -= 1

    async def _escape(self, error: Exception) -> None:
        """Log what ended a worker; raise it when this goes on and on. Its request was perhaps never answered."""
        now = time.monotonic()
        if len(self._escapes) == ESCAPES_MAX and now - self._escapes[0] < ESCAPES_WINDOW_S:
            raise error
        self._escapes.append(now)
        self.escaped += 1
        log.error("fuse worker failed, restarting it (%d so far)", self.escaped, exc_info=error)
        await trio.sleep(0.01)


class _WorkerNursery:
    """A trio nursery whose tasks are supervised, with the lock's instrument installed while it is open."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._manager = trio.open_nursery()
        self._nursery: trio.Nursery | None = None

    async def __aenter__(self) -> _WorkerNursery:
        self._nursery = await self._manager.__aenter__()
        trio.lowlevel.add_instrument(self._loop._instrument)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._manager.__aexit__(kind, error, traceback)
        finally:
            with contextlib.suppress(KeyError):
                trio.lowlevel.remove_instrument(self._loop._instrument)

    def start_soon(
        self, worker: Callable[..., Awaitable[None]], *args: object, name: str | None = None
    ) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._loop._supervised, worker, *args, name=name)
