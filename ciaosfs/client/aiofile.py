"""Open objects for trio, and the worker threads in which calls wait for the daemon."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import trio

from ciaosfs.base import limits
from ciaosfs.base.types import Buffer
from ciaosfs.client.reader import BufferedObject
from ciaosfs.client.writer import ObjectWriter

Result = TypeVar("Result")


class Threads:
    """What blocks, done in as many threads as a session has connections for calls."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(limits.CLIENT_CALLS_MAX)

    async def run(self, work: Callable[[], Result], cut: Callable[[], None]) -> Result:
        """What `work` returns in a thread. Cancelled: `cut` is called, which must let `work` end soon, and waited for it."""
        results: list[Result] = []
        failures: list[Exception] = []

        async def cut_when_cancelled() -> None:
            try:
                await trio.sleep_forever()
            finally:
                if not results and not failures:
                    cut()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut_when_cancelled)
            try:
                results.append(await trio.to_thread.run_sync(work, limiter=self._limiter))
            except Exception as error:  # noqa: BLE001 - raised below, outside of the nursery, which would wrap it
                failures.append(error)
            nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]
        return results[0]


class AsyncObject:
    """An open object: the calls of `file`, which it owns, as coroutines. An async context manager; else `aclose` it.

    One that is left by an exception, or cancelled while it is closed, puts nothing.
    """

    def __init__(self, file: BufferedObject | ObjectWriter, threads: Threads) -> None:
        self.file = file
        self._threads = threads

    async def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, all that are left for -1."""
        return await self._call(self.file.read, size)

    async def seek(self, offset: int, whence: int = 0) -> int:
        """Go there."""
        return await self._call(self.file.seek, offset, whence)

    async def write(self, data: Buffer) -> int:
        """Write all of it; returns how much it is."""
        return await self._call(self.file.write, data)

    async def aclose(self) -> None:
        """Close it: what was written is put."""
        await self._call(self.file.close)

    async def abandon(self) -> None:
        """Close it: what was written is forgotten."""
        with trio.CancelScope(shield=True):
            await self._call(self.file.abandon if isinstance(self.file, ObjectWriter) else self.file.close)

    async def __aenter__(self) -> AsyncObject:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.aclose()
        finally:
            if not self.file.closed:
                await self.abandon()

    async def _call(self, work: Callable[..., Result], *arguments: Any) -> Result:
        return await self._threads.run(lambda: work(*arguments), self.file.interrupt)
