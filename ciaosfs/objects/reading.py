"""Objects as they are read: an open file on the mount, and what is known of it.

What was opened stays what it is when the key gets another content. Its descriptor is closed in a thread: the kernel
first writes back what its cache holds of the file, to this very daemon.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ciaosfs.base import limits
from ciaosfs.base.errors import FsError
from ciaosfs.codec.parts import parts_of
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.fs.xattrs import PARTS
from ciaosfs.objects.agent import Agent
from ciaosfs.objects.kept import Kept
from ciaosfs.objects.refusals import about
from ciaosfs.objects.turns import Turns
from ciaosfs.objects.visits import Opened, look_again, read_at

METADATA_PREFIX = b"user."
OWN_PREFIX = b"user.ciaos."
METADATA_BYTES_MAX = 128 * limits.KIB
"""Told of one object: a file may have more xattrs than fit in an answer."""


@dataclass(frozen=True, slots=True)
class Description:
    """What is known of an object. `omitted` are the names of metadata that is too much to be told."""

    size: int
    parts: list[int]
    mtime_ns: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    omitted: tuple[str, ...] = ()


async def describe(
    filesystem: FileSystem, agent: Agent, turns: Turns, opened: Opened, key: str
) -> Description:
    """Size and parts as of one moment, though somebody may be appending."""
    description = describe_at_once(filesystem, turns, opened, key)
    if description is None:
        async with turns.of(opened.ino):
            with about(key):
                opened = await agent.run(look_again, opened)
                description = _description(filesystem, opened, filesystem.getxattr(opened.ino, PARTS))
    return description


def describe_at_once(filesystem: FileSystem, turns: Turns, opened: Opened, key: str) -> Description | None:
    """As `describe`, without a look at the file; None when it may have changed, or gone, since it was looked at."""
    with about(key):
        if not filesystem.has_inode(opened.ino):
            return None
        value = filesystem.getxattr(opened.ino, PARTS)
        if turns.is_taken(opened.ino) or (value is not None and len(parts_of(value, opened.size)) == 1):
            return None  # between its bytes and its list of parts, or the list is newer than the size
        return _description(filesystem, opened, value)


def _description(filesystem: FileSystem, opened: Opened, parts: bytes | None) -> Description:
    metadata, omitted = _metadata(filesystem, opened.ino)
    return Description(opened.size, parts_of(parts, opened.size), opened.mtime_ns, metadata, omitted)


class OpenObject(Kept):
    """One open object, and one of `others` while it is."""

    def __init__(self, agent: Agent, opened: Opened, key: str, others: set[OpenObject]) -> None:
        self._agent = agent
        self._opened = opened
        self._key = key
        self._others = others
        self._reads = 0
        self._is_closed = False
        others.add(self)

    async def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer only at the end."""
        if self._is_closed:
            raise FsError(errno.EBADF, f"{self._key!r} is not open any more: open it again.")
        self._reads += 1
        try:
            with about(self._key):
                return await self._agent.run(read_at, self._opened.descriptor, offset, length)
        finally:
            self._reads -= 1
            if self._is_closed and not self._reads:
                await self._agent.run(os.close, self._opened.descriptor)

    async def close(self) -> None:
        """Let go of the file, when the reads that are under way have ended."""
        if self._is_closed:
            return
        self._is_closed = True
        self._others.discard(self)
        if not self._reads:
            await self._agent.run(os.close, self._opened.descriptor)


def _metadata(filesystem: FileSystem, ino: int) -> tuple[dict[str, str], tuple[str, ...]]:
    metadata: dict[str, str] = {}
    omitted: list[str] = []
    room = METADATA_BYTES_MAX
    for name in filesystem.listxattr(ino):
        if not name.startswith(METADATA_PREFIX) or name.startswith(OWN_PREFIX):
            continue
        text = _text(name.removeprefix(METADATA_PREFIX))
        value = filesystem.getxattr(ino, name) or b""
        room -= len(name) + len(value)
        if room >= 0:
            metadata[text] = _text(value)
        elif room > -METADATA_BYTES_MAX:
            omitted.append(text)
    return metadata, tuple(omitted)


def _text(content: bytes) -> str:
    return content.decode(errors="surrogateescape")
