"""New contents of keys, on their way: files without a name until they are whole.

A draft that is given up, or whose daemon dies, leaves nothing. `publish` looks at the directory as the caller, lets
the file system name the file in one step, and has the kernel forget what it knew of the name before it returns. In
that step what has the name is looked at again, so of two that replace the same file one comes after the other.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import trio

from ciaosfs.base.errors import FsError, UsageError
from ciaosfs.base.types import Buffer
from ciaosfs.codec.parts import check_count, encode_parts
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.fs.requester import Requester
from ciaosfs.fs.unnamed import Naming
from ciaosfs.fs.xattrs import PARTS
from ciaosfs.meta.inodes import Inode
from ciaosfs.objects.agent import Agent
from ciaosfs.objects.credentials import Actor
from ciaosfs.objects.kept import Kept
from ciaosfs.objects.kernel import ForgetName
from ciaosfs.objects.keys import Names
from ciaosfs.objects.refusals import about
from ciaosfs.objects.visits import Spot, Wish, find_spot

TRIES_MAX = 32
"""How often another put may take the name between the look at it and the step that names the file."""
FILE_PERMISSIONS = 0o644


@dataclass(frozen=True, slots=True)
class Target:
    """Where something goes for whom: `path` below `reach`, `key` for people. `permissions` are nine bits.

    None: those of the file that is replaced, else FILE_PERMISSIONS.
    """

    actor: Actor
    reach: Names
    path: Names
    key: str
    wish: Wish = Wish.PUT
    permissions: int | None = None

    @property
    def folder_mode(self) -> int:
        """Of directories that are made for it: whoever may read the file may enter them, and its owner may change
        them."""
        permissions = FILE_PERMISSIONS if self.permissions is None else self.permissions
        return permissions | (permissions & 0o444) >> 2 | 0o700


@dataclass(frozen=True, slots=True)
class Published:
    """What is under the key now."""

    size: int
    mtime_ns: int
    replaced: bool


class Draft(Kept):
    """One file without a name. Not to be used by two tasks at once; ends with `publish` or `close`."""

    def __init__(
        self, filesystem: FileSystem, agent: Agent, forget_name: ForgetName, target: Target, handle: int
    ) -> None:
        self._fs = filesystem
        self._agent = agent
        self._forget_name = forget_name
        self._target = target
        self._handle = handle
        self._is_over = False
        self._parts: list[int] = []
        self.size = 0

    async def write(
        self, data: Buffer, *, begins_part: bool = False, sizes: Sequence[int] | None = None
    ) -> int:
        """Take `data`, never changed afterwards, as the next bytes; returns how many there are then.

        They go on in the last part, or begin a new one, or are new parts of `sizes`. ENOSPC, EFBIG; UsageError for
        too many parts, or sizes of which `data` is not the sum. Nothing of it is taken then.
        """
        self._check_open()
        if sizes is None:
            sizes = [len(data)]
            begins_part = begins_part or not self._parts
        else:
            begins_part = True
            if sum(sizes) != len(data) or min(sizes, default=-1) < 0:
                raise UsageError(f"The sizes of the parts are together not the {len(data)} bytes that came.")
        if begins_part:
            check_count(len(self._parts) + len(sizes))
        with about(self._target.key):
            await self._fs.write(self._handle, self.size, data)
        self.size += len(data)
        if begins_part:
            self._parts += sizes
        else:
            self._parts[-1] += len(data)
        return self.size

    async def publish(
        self, metadata: Mapping[bytes, bytes], *, spot: Spot | None = None, sync: bool = False
    ) -> Published:
        """Let the key stand for what was written, with `metadata` as xattrs; `sync`: return when that is durable.

        `spot` is where it goes, if that was just looked at. Whatever is refused, the draft is over: it is there, or
        nothing is left of it.
        """
        self._check_open()
        self._is_over = True
        try:
            with about(self._target.key):
                values = dict(metadata)
                if len(self._parts) > 1:
                    values[PARTS] = encode_parts(self._parts)
                directory, made, former = await self._name(values, spot)
        except BaseException:
            self._fs.give_up(self._handle)
            raise
        with trio.CancelScope(shield=True):
            await self._tell_kernel(directory, made.ino, former)
        if sync:
            await self._fs.sync()
        return Published(made.size, made.mtime_ns, former is not None)

    async def close(self) -> None:
        """Give it up unless it was published."""
        if not self._is_over:
            self._is_over = True
            self._fs.give_up(self._handle)

    async def _name(
        self, values: Mapping[bytes, bytes], spot: Spot | None
    ) -> tuple[int, Inode, Inode | None]:
        """Look, and name the file: the directory, the file, and the one it replaced."""
        target = self._target
        for _ in range(TRIES_MAX):
            if spot is None:
                spot = await self._agent.visit(
                    target.actor,
                    target.reach,
                    find_spot,
                    target.path,
                    target.wish,
                    target.actor.uid,
                    folder_mode=target.folder_mode,
                )
            permissions = target.permissions
            if permissions is None and spot.former is None:
                permissions = FILE_PERMISSIONS
            naming = Naming(spot.former, permissions, values)
            try:
                named = await self._fs.publish(self._handle, spot.directory, target.path[-1], naming)
            except FsError as error:
                if not _is_overtaken(error, spot, target.wish):
                    raise
                spot = None
            else:
                return spot.directory, *named
        raise FsError(errno.ESTALE)

    async def _tell_kernel(self, directory: int, ino: int, former: Inode | None) -> None:
        """The kernel forgets what it knew of the name; what it has never met and nobody can find any more is purged.

        Until it has, it may rename or unlink the name and mean the former file. What it moved it believes to be
        that one, so it is to forget the name it gave it, too.
        """
        inodes = [ino] if former is None else [ino, former.ino]
        unknown: list[int] = []
        name = self._target.path[-1]
        for _ in range(TRIES_MAX):
            unknown = await self._agent.run(self._forget_name, directory, name, inodes)
            moved = self._fs.moved_to(ino, directory, name)
            if moved is None:
                break
            directory, name = moved
        self._fs.release(self._handle)
        self._fs.forget(unknown)

    def _check_open(self) -> None:
        if self._is_over:
            raise FsError(errno.EBADF, f"{self._target.key!r} is not being written any more: begin anew.")


def _is_overtaken(error: FsError, spot: Spot, wish: Wish) -> bool:
    """Whether somebody else was faster between the look and the step, so that another look decides."""
    if error.errno == errno.EEXIST:
        return spot.former is None and wish is not Wish.CREATE
    return error.errno in (errno.ESTALE, errno.ENOENT, errno.EISDIR, errno.EINVAL)


async def begin_draft(filesystem: FileSystem, agent: Agent, forget_name: ForgetName, target: Target) -> Draft:
    """A draft for `target`. What `publish` would refuse now is refused at once, before anything is sent for
    nothing."""
    with about(target.key):
        spot = await agent.visit(
            target.actor, target.reach, find_spot, target.path, target.wish, target.actor.uid
        )
        return await _draft(filesystem, agent, forget_name, target, spot)


async def put_at_once(
    filesystem: FileSystem,
    agent: Agent,
    forget_name: ForgetName,
    target: Target,
    data: Buffer,
    sizes: Sequence[int],
    metadata: Mapping[bytes, bytes],
    *,
    sync: bool = False,
) -> Published:
    """A draft from its beginning to its end."""
    with about(target.key):
        await filesystem.wait_room(len(data))
        spot = await agent.visit(
            target.actor,
            target.reach,
            find_spot,
            target.path,
            target.wish,
            target.actor.uid,
            folder_mode=target.folder_mode,
        )
        draft = await _draft(filesystem, agent, forget_name, target, spot)
    try:
        await draft.write(data, sizes=sizes)
        return await draft.publish(metadata, spot=spot, sync=sync)
    finally:
        await draft.close()


async def _draft(
    filesystem: FileSystem, agent: Agent, forget_name: ForgetName, target: Target, spot: Spot
) -> Draft:
    who = Requester(target.actor.uid, target.actor.gid, 0, 0)
    handle = await filesystem.create_unnamed(spot.directory, who)
    return Draft(filesystem, agent, forget_name, target, handle)
