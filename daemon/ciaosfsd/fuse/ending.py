"""How what a session has open ends: first the kernel hands over what was written, then nothing passes any more.

The requests of a session whose binding has ended are refused from that moment on, reads through what it has open, too.
But its data may be in the kernel's cache still, and there is nobody else to bring it here. So its files are written back
and their pages dropped, in a thread because this waits for requests that the loop serves; meanwhile writes through its
handles pass. What can still be written anew by it then are only pages it had mapped, until they are dropped:
touching them afterwards asks for a read, which is refused. Unless somebody else has them in the cache still: what is written
into those is dropped as well (`GuardedHandlers.write`).
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Collection

import pyfuse3
import trio

from ciaosfs.access.sessions import Binding
from ciaosfs.base.log import RateLimit
from ciaosfsd.fuse.handles import GuardedHandles

log = logging.getLogger(__name__)

_limit = RateLimit(burst=10, interval_s=60.0)


class Endings:
    """Closes bindings that have ended, in a task."""

    def __init__(self, handles: GuardedHandles, write_back: Callable[[], None]) -> None:
        """`write_back` makes the kernel hand over everything that was written; blocking."""
        self._handles = handles
        self._write_back = write_back
        self._ended: list[Binding] = []
        self._stale: set[int] = set()
        self._filled = trio.Event()
        self._limiter = trio.CapacityLimiter(1)

    def begin(self, binding: Binding) -> None:
        """The binding has ended: listens to `Sessions.on_end`."""
        self._ended.append(binding)
        self._filled.set()

    def drop_pages(self, ino: int) -> None:
        """The kernel has in its cache what nobody may have written."""
        if _limit.allows("dropped"):
            log.info("what a session wrote into mapped pages after its end is dropped, inode %d", ino)
        self._stale.add(ino)
        self._filled.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._filled.wait()
            self._filled = trio.Event()
            ended, self._ended = self._ended, []
            inodes, self._stale = self._stale, set()
            has_written = False
            for binding in ended:
                held, writes = self._handles.of_binding(binding)
                inodes |= held
                has_written |= writes
            if inodes:
                await trio.to_thread.run_sync(
                    self._hand_over, inodes, has_written, abandon_on_cancel=True, limiter=self._limiter
                )
            for binding in ended:
                binding.close()

    def _hand_over(self, inodes: Collection[int], has_written: bool) -> None:
        try:
            if has_written:
                # All at once in large requests; what is left is written page by page.
                self._write_back()
        except OSError as error:
            log.info("not everything was written back when a session ended: %s", error.strerror)
        for ino in inodes:
            _drop_pages(ino)


def _drop_pages(ino: int) -> None:
    try:
        pyfuse3.invalidate_inode(ino)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTCONN):  # forgotten meanwhile, or no longer mounted
            log.warning("pages of inode %d were not dropped: %s", ino, os.strerror(error.errno or errno.EIO))
