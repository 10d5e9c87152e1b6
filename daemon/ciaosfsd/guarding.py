"""What stands between users and the mount: the sessions that are logged in, and the handlers that ask them.

Where permissions alone decide there are sessions all the same, for the control socket; the handlers of the mount then know
nothing of them, and cost nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from ciaosfs.access.authority import Authority
from ciaosfs.access.judge import Judge
from ciaosfs.access.places import Places
from ciaosfs.access.processes import KernelProcesses, is_own_thread
from ciaosfs.access.sessions import Sessions
from ciaosfs.fs.filesystem import FileSystem
from ciaosfsd.fuse.attributes import CACHE_S, UNCACHED_S
from ciaosfsd.fuse.ending import Endings
from ciaosfsd.fuse.guard import GuardedHandlers
from ciaosfsd.fuse.handles import GuardedHandles
from ciaosfsd.fuse.operations import Handlers
from ciaosfsd.fuse.ready import ReadyListings
from ciaosfsd.fuse.session import write_back


@dataclass(frozen=True, slots=True)
class Guarding:
    """`processes` is where sessions are recognised, `handlers` answer the requests of the mount and `ready` works
    ahead of them."""

    processes: KernelProcesses
    sessions: Sessions
    ready: ReadyListings
    handlers: Handlers


@asynccontextmanager
async def open_guarding(
    filesystem: FileSystem, authority: Authority, mountpoint: Path, *, by_tokens: bool
) -> AsyncIterator[Guarding]:
    """To be entered before the mount and left after it. `by_tokens`: a token is needed on the mount."""
    processes = KernelProcesses()
    sessions = Sessions(processes, is_own_thread)
    authority.on_end(sessions.token_ended)
    async with trio.open_nursery() as nursery:
        ready = ReadyListings(filesystem, UNCACHED_S if by_tokens else CACHE_S)
        handlers = Handlers(filesystem, ready)
        if by_tokens:
            meta = filesystem.parts.meta
            judge = Judge(sessions, authority.is_live, is_own_thread, Places(meta.inodes, meta.dentries))
            handles = GuardedHandles(judge)
            endings = Endings(handles, partial(write_back, mountpoint))
            handlers = GuardedHandlers(filesystem, ready, judge, handles, endings.drop_pages)
            sessions.on_end(endings.begin)
            nursery.start_soon(endings.run)
        nursery.start_soon(sessions.run)
        try:
            yield Guarding(processes, sessions, ready, handlers)
        finally:
            nursery.cancel_scope.cancel()
