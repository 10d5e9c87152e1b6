"""The facade: objects under keys, for whom they are asked for.

`Place` says where a caller's keys begin and how far they reach. Operations wait in the loop for threads that do them
as the caller; what is under way when the store is to be unmounted is waited for, and what is merely open is closed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import FsError, NotNowError
from ciaosfs.base.types import Buffer
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.objects import visits
from ciaosfs.objects.agent import Agent
from ciaosfs.objects.appending import Appended, append
from ciaosfs.objects.credentials import Actor
from ciaosfs.objects.drafts import TRIES_MAX, Draft, Published, Target, begin_draft, put_at_once
from ciaosfs.objects.kernel import ForgetName
from ciaosfs.objects.keys import Names, below, show
from ciaosfs.objects.listing import Enter, Listing, Question, Shelf
from ciaosfs.objects.reading import Description, OpenObject, describe, describe_at_once
from ciaosfs.objects.refusals import about, refusal
from ciaosfs.objects.turns import Turns
from ciaosfs.objects.visits import Opened, Wish

FOLDER_MODE = 0o755
LET_GO_S = 5.0
"""How long to wait for operations under way before what is open is closed."""
PAUSE_S = 5.0
"""How long operations then wait before they begin: the store is unmounted within that, or not at all."""
END_S = limits.DRIVE_DEADLINE_S_MAX + 10.0
"""... at the end. None waits longer for drives; one that did would wait for a mount that nobody answers any more."""


@dataclass(frozen=True, slots=True)
class Place:
    """For whom, and where: keys are names below `folder`, and must lie below `reach`, which is `folder` or below
    it."""

    actor: Actor
    folder: Names = ()
    reach: Names = ()

    def path(self, key: Names) -> Names:
        """The names below `reach`. AccessError for a key elsewhere."""
        return below(self.folder, self.reach, key)


class ObjectStore:
    """The objects of one mounted store."""

    def __init__(self, filesystem: FileSystem, agent: Agent, forget_name: ForgetName) -> None:
        self._fs = filesystem
        self._agent = agent
        self._forget_name = forget_name
        self._turns = Turns()
        self._shelf = Shelf()
        self._open: set[OpenObject] = set()
        self._busy = 0
        self._pause_end_s = 0.0
        self._is_ending = False
        self._ended = trio.Event()
        self._settled = trio.Event()

    async def stat(self, place: Place, key: Names) -> Description:
        """What is known of the object. Its file must be readable."""
        async with self._opened(place, key) as opened:
            return await describe(self._fs, self._agent, self._turns, opened, show(key))

    async def open(self, place: Place, key: Names) -> tuple[OpenObject, Description]:
        """The object, open for reading."""
        async with self._working():
            return await self._keep(await self._visit_file(place, key, os.O_RDONLY), key)

    async def get(
        self, place: Place, key: Names, length: int
    ) -> tuple[OpenObject | None, Description, bytes]:
        """The first `length` bytes of the object, and it, open for reading, if there are more."""
        async with self._working():
            path = place.path(key)
            with about(show(key)):
                opened, content = beginning = await self._agent.visit(
                    place.actor, place.reach, visits.read_beginning, path, length
                )
            if not beginning.is_whole:
                return *await self._keep(opened, key), content
            known = describe_at_once(self._fs, self._turns, opened, show(key))
            if known is not None:
                return None, known, content
            # As it is when who is changing it has done so.
            found, description = await self._keep(await self._visit_file(place, key, os.O_RDONLY), key)
            try:
                return found, description, await found.read(0, length)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await found.close()
                raise

    async def begin(self, place: Place, key: Names, wish: Wish, permissions: int | None) -> Draft:
        """A new content for the key, to be written and published."""
        async with self._working():
            target = self._target(place, key, wish, permissions)
            return await begin_draft(self._fs, self._agent, self._forget_name, target)

    async def publish(self, draft: Draft, metadata: Mapping[bytes, bytes], *, sync: bool) -> Published:
        """As `Draft.publish`; unmounting waits for it."""
        async with self._working():
            return await draft.publish(metadata, sync=sync)

    async def put(
        self,
        place: Place,
        key: Names,
        wish: Wish,
        permissions: int | None,
        data: Buffer,
        sizes: Sequence[int],
        metadata: Mapping[bytes, bytes],
        *,
        sync: bool,
    ) -> Published:
        """A small object at once."""
        async with self._working():
            target = self._target(place, key, wish, permissions)
            return await put_at_once(
                self._fs, self._agent, self._forget_name, target, data, sizes, metadata, sync=sync
            )

    async def append(
        self,
        place: Place,
        key: Names,
        data: Buffer,
        sizes: Sequence[int],
        *,
        goes_on: bool = False,
        sync: bool = False,
        create: bool = False,
    ) -> Appended:
        """Add parts of `sizes` at the end; `goes_on`: the first of them is the rest of the last part.

        `create`: an object that is missing is made of them.
        """
        for _ in range(TRIES_MAX):
            try:
                return await self._append(place, key, data, sizes, goes_on=goes_on, sync=sync)
            except FsError as error:
                if error.errno != errno.ENOENT or not create:
                    raise
            try:
                made = await self.put(place, key, Wish.CREATE, None, data, sizes, {}, sync=sync)
            except FsError as error:
                if error.errno != errno.EEXIST:
                    raise
            else:
                return Appended(0, made.size)
        raise refusal(errno.ESTALE, show(key))

    async def _append(
        self, place: Place, key: Names, data: Buffer, sizes: Sequence[int], *, goes_on: bool, sync: bool
    ) -> Appended:
        async with self._opened(place, key, os.O_WRONLY | os.O_APPEND) as opened, self._turns.of(opened.ino):
            with about(show(key)):
                await self._fs.wait_room(len(data))
                work = partial(append, opened.descriptor, data, sizes, goes_on=goes_on, sync=sync)
                return await self._agent.run_as(place.actor, work)

    async def delete(self, place: Place, key: Names) -> None:
        """Remove the name."""
        async with self._working():
            with about(show(key)):
                await self._agent.visit(place.actor, place.reach, visits.remove, place.path(key))

    async def rename(self, place: Place, old: Names, new: Names) -> None:
        """Let another key, which nothing has, stand for the object."""
        async with self._working():
            path, new_path = place.path(old), place.path(new)
            with about(show(old)):
                try:
                    await self._agent.visit(
                        place.actor, place.reach, visits.rename, path, new_path, FOLDER_MODE
                    )
                except FileExistsError as error:
                    raise FsError(errno.EEXIST, f"{show(new)!r} exists: give another key.") from error

    def list(self, place: Place, folder: Names, beginning: bytes, after: bytes, *, flat: bool) -> Listing:
        """The keys that begin with the names `folder` and then with `beginning`. Close it."""
        begin = place.reach[len(place.folder) :]
        if folder[: len(begin)] != begin:
            # It lies above what the token is good for, or elsewhere: only what is in reach is listed.
            is_above = begin[: len(folder)] == folder and begin[len(folder)].startswith(beginning)
            if not is_above:
                place.path((*folder, beginning or b"*"))
            folder, beginning = begin, b""
        return Listing(
            Question(folder, beginning, after, flat), self._enter(place), self._fs.names_after, self._shelf
        )

    async def let_go(self, patience_s: float = LET_GO_S) -> None:
        """Wait for what is under way, and close what is open, so that nothing here keeps the mount in use.

        What is asked for from now on waits for PAUSE_S: clients that never rest could keep the mount in use for ever.
        """
        self._pause_end_s = trio.current_time() + PAUSE_S
        self._settled = trio.Event()
        if self._busy:
            with trio.move_on_after(patience_s):
                await self._settled.wait()
        for found in list(self._open):
            await found.close()

    async def end(self) -> None:
        """As `let_go`, and nothing is begun any more."""
        self._is_ending = True
        self._ended.set()
        await self.let_go(END_S)

    def _enter(self, place: Place) -> Enter:
        async def enter(names: Names) -> int:
            async with self._working():
                with about(show(names)):
                    path = (place.folder + names)[len(place.reach) :]
                    return await self._agent.visit(place.actor, place.reach, visits.directory_to_list, path)

        return enter

    def _target(self, place: Place, key: Names, wish: Wish, permissions: int | None) -> Target:
        return Target(place.actor, place.reach, place.path(key), show(key), wish, permissions)

    async def _visit_file(self, place: Place, key: Names, flags: int) -> Opened:
        path = place.path(key)
        with about(show(key)):
            return await self._agent.visit(place.actor, place.reach, visits.open_file, path, flags)

    async def _keep(self, opened: Opened, key: Names) -> tuple[OpenObject, Description]:
        found = OpenObject(self._agent, opened, show(key), self._open)
        try:
            return found, await describe(self._fs, self._agent, self._turns, opened, show(key))
        except BaseException:
            with trio.CancelScope(shield=True):
                await found.close()
            raise

    @asynccontextmanager
    async def _opened(self, place: Place, key: Names, flags: int = os.O_RDONLY) -> AsyncIterator[Opened]:
        """The file, open in the context."""
        async with self._working():
            opened = await self._visit_file(place, key, flags)
            try:
                yield opened
            finally:
                with trio.CancelScope(shield=True):
                    await self._agent.run(os.close, opened.descriptor)

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        """Counted as under way. NotNowError, before anything is done, when the store is being unmounted."""
        while not self._is_ending and trio.current_time() < self._pause_end_s:
            with trio.move_on_at(self._pause_end_s):
                await self._ended.wait()
        if self._is_ending:
            raise NotNowError("The store is being unmounted: try again when it is mounted.")
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._settled.set()
