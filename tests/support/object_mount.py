"""A store mounted by this very process, from a thread, so that tests can ask its objects for anybody.

`ask` runs something in the daemon's loop; the test's own thread uses the mount meanwhile, as any program does.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio
from ciaosfsd import services

from ciaosfs.base.config import load_config
from ciaosfs.base.errors import CiaosError
from ciaosfs.client import transport
from ciaosfs.objects.appending import Appended
from ciaosfs.objects.credentials import Actor
from ciaosfs.objects.keys import Names
from ciaosfs.objects.store import ObjectStore, Place
from ciaosfs.objects.visits import Wish
from ciaosfs.offline.mkfs import make_store, plan_store
from tests.support.mount import detach, is_mounted

T = TypeVar("T")
READY_S = 20.0
FIRST_BYTES = 4096
"""What `get` gets at once."""


class ObjectMount:
    """Inside its context the store is mounted at `path`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.path = base / "mount"
        self.objects: ObjectStore
        self._token: trio.lowlevel.TrioToken
        self._ready = threading.Event()
        self._stopping: trio.Event
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="daemon", daemon=True)
        self.services: services.Services

    def __enter__(self) -> ObjectMount:
        store = self.base / "store"
        make_store(plan_store(store, [], 1, 1))
        self.path.mkdir()
        self._thread.start()
        assert self._ready.wait(READY_S), "not mounted in time"
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        trio.from_thread.run_sync(self._stopping.set, trio_token=self._token)
        self._thread.join(READY_S)
        if is_mounted(self.path):
            detach(self.path)
        assert not self._thread.is_alive(), "the daemon does not end"
        if self._failure is not None:
            raise self._failure

    def ask(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """What the function returns or raises, called in the daemon's loop."""
        return trio.from_thread.run(function, *args, trio_token=self._token)

    def put(
        self, place: Place, key: str, data: bytes, wish: Wish = Wish.PUT, permissions: int | None = None
    ) -> None:
        async def put() -> None:
            names = parse(key)
            await self.objects.put(place, names, wish, permissions, data, [len(data)], {}, sync=False)

        self.ask(put)

    def get(self, place: Place, key: str) -> bytes:
        async def get() -> bytes:
            found, description, content = await self.objects.get(place, parse(key), FIRST_BYTES)
            if found is None:
                assert len(content) == description.size
                return content
            try:
                return content + await found.read(len(content), description.size - len(content))
            finally:
                await found.close()

        return self.ask(get)

    def append(self, place: Place, key: str, data: bytes, **how: bool) -> Appended:
        async def append() -> Appended:
            return await self.objects.append(place, parse(key), data, [len(data)], **how)

        return self.ask(append)

    def parts(self, place: Place, key: str) -> list[int]:
        async def stat() -> list[int]:
            return (await self.objects.stat(place, parse(key))).parts

        return self.ask(stat)

    def place(self, name: str) -> Place:
        """A new folder of root's, where keys begin."""
        folder = "".join(c if c.isalnum() else "-" for c in name)
        (self.path / folder).mkdir()
        return Place(Actor(0, 0), (folder.encode(),), (folder.encode(),))

    def path_of(self, place: Place, key: str = "") -> Path:
        return self.path.joinpath(*map(os.fsdecode, place.folder), key)

    def keys(self, place: Place, prefix: str = "", limit: int = 1000, *, flat: bool = False) -> list[str]:
        async def listed() -> list[str]:
            *folder, beginning = prefix.encode().split(b"/")
            listing = self.objects.list(place, tuple(folder), beginning, b"", flat=flat)
            keys: list[str] = []
            while True:
                page = await listing.page(limit)
                keys += [key.key for key in page.keys]
                if page.is_last:
                    await listing.close()
                    return keys

        return self.ask(listed)

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001 - carried to the test's own thread
            self._failure = error
        self._ready.set()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stopping = trio.Event()
        config = load_config(self.base / "store")
        transport.make_runtime_directory()
        socket = transport.socket_path(config.store_id)
        async with services.build(config, self.path, socket, self._stopping.set) as running:
            self.services = running
            self.objects = running.objects
            async with trio.open_nursery() as nursery:

                async def stop() -> None:
                    await self._stopping.wait()
                    await running.stop()

                nursery.start_soon(stop)
                await nursery.start(running.control.serve)
                nursery.start_soon(self._report, running)
                await running.session.serve()
                await running.control.close()
                nursery.cancel_scope.cancel()

    async def _report(self, running: services.Services) -> None:
        await running.session.wait_answering()
        self._ready.set()


def parse(key: str) -> Names:
    return tuple(key.encode(errors="surrogateescape").split(b"/"))


def refusal_of(function: Callable[[], object]) -> str:
    """The errno by name that something is refused with, "" when it is not."""
    try:
        function()
    except (CiaosError, OSError) as error:
        return errno.errorcode[error.errno or 0]
    return ""


def as_user(actor: Actor, root: Path, function: Callable[[], object]) -> str:
    """`refusal_of` the function in a process of the actor, whose working directory is `root`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "EPROTO"
        try:
            os.chdir(root)
            os.setgroups(list(actor.groups))
            os.setgid(actor.gid)
            os.setuid(actor.uid)
            os.umask(0o022)
            said = refusal_of(function)
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said
