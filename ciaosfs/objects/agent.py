"""The threads that act for callers on the daemon's own mount.

They are a pool of their own: one of them waits for this very daemon to answer the kernel, which may wait for drives
and so for the threads that are there for them. Before each visit a thread opens the root of the mount as the daemon,
then becomes the caller, and finds its way from there by the caller's permissions. Nothing on the mount stays open
between visits but what a visit returns: an open descriptor would keep the mount from being unmounted. Once it has been,
the mount point is an ordinary directory, in which nothing may be done: the device of what was opened tells.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, TypeVar, TypeVarTuple

from ciaosfs.base import limits
from ciaosfs.base.errors import NotNowError
from ciaosfs.drive.workers import Workers
from ciaosfs.objects.beneath import open_beneath
from ciaosfs.objects.credentials import Actor, become, own_umask
from ciaosfs.objects.keys import Names

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Thread(threading.local):
    """Who a thread of the pool is at present; None: not known. `is_ready`: it has been set up."""

    actor: Actor | None = None
    is_ready = False


class Agent:
    """An async context manager. Leaving it waits for visits under way, so the mount is to be gone or to answer by
    then."""

    def __init__(self, mountpoint: Path) -> None:
        self._mountpoint = mountpoint
        self._workers = Workers(limits.OBJECT_THREADS_MAX, "ciaos-object")
        self._daemon = Actor(os.geteuid(), os.getegid(), tuple(os.getgroups()))
        self._device: int | None = None
        self._thread = _Thread()

    async def __aenter__(self) -> Agent:
        await self._workers.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._workers.__aexit__(kind, error, traceback)

    def stand_on(self, device: int) -> None:
        """From now on there is a mount, and this is its `st_dev`; before, nothing can be visited."""
        self._device = device

    def is_at_work(self) -> bool:
        """Whether anybody waits for one of these threads."""
        return self._workers.is_awaited

    async def visit(
        self,
        actor: Actor,
        reach: Names,
        function: Callable[Concatenate[int, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call `function(descriptor of reach, ...)` as `actor`; `reach` are the names from the root of the mount.

        Raises what it raises, NotNowError when the store is no longer mounted there, OSError when the way there is
        not open to the actor or is none without symbolic links.
        """
        return await self._workers.run(lambda: self._visit(actor, reach, function, *args, **kwargs))

    async def run_as(self, actor: Actor, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call `function(*args)`, which has its descriptors already, as `actor`."""

        def run() -> T:
            self._become(actor)
            return function(*args)

        return await self._workers.run(run)

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call `function(*args)`, for which it does not matter who does it."""
        return await self._workers.run(function, *args)

    def _visit(
        self,
        actor: Actor,
        reach: Names,
        function: Callable[Concatenate[int, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        self._become(self._daemon)
        root = os.open(self._mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.fstat(root).st_dev != self._device:
                raise NotNowError("The store is being unmounted: try again when it is mounted.")
            self._become(actor)
            if not reach:
                return function(root, *args, **kwargs)
            descriptor = open_beneath(root, b"/".join(reach), os.O_PATH | os.O_DIRECTORY, follow=False)
            try:
                return function(descriptor, *args, **kwargs)
            finally:
                os.close(descriptor)
        finally:
            os.close(root)

    def _become(self, actor: Actor) -> None:
        thread = self._thread
        if not thread.is_ready:
            own_umask()
            thread.is_ready = True
        if thread.actor != actor:
            thread.actor = None  # should it fail half-way
            become(actor)
            thread.actor = actor
