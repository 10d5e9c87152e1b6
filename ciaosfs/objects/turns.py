"""One at a time for each file: appends over the socket, and looks at a file that is being appended to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Turns:
    """Locks by inode that exist while somebody has or wants them."""

    def __init__(self) -> None:
        self._locks: dict[int, trio.Lock] = {}

    def is_taken(self, ino: int) -> bool:
        return ino in self._locks

    @asynccontextmanager
    async def of(self, ino: int) -> AsyncIterator[None]:
        """Wait for the turn, and have it in the context."""
        lock = self._locks.setdefault(ino, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._locks.pop(ino, None)
