"""A FileSystem that keeps everything in dictionaries: a test double for the FUSE edge alone.

It has the methods of `ciaosfs.fs.filesystem.FileSystem` that the edge calls and nothing behind them: no
durability, no limits. Three names make it misbehave on purpose, so that tests can look at the edge: reading
a file called `bug` raises an exception that no edge expects, reading one called `lost` finds its stripe lost,
and reading one called `slow` takes `SLOW_S`. The xattr `user.test.counts` of the root tells what was asked.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import stat
import time
from collections.abc import Collection, Sequence

import trio

from ciaosfs.base.errors import FsError, StripeLostError
from ciaosfs.base.types import Buffer, Space
from ciaosfs.drive.calls import DriveCallStatistics
from ciaosfs.drive.workers import WorkerStatistics
from ciaosfs.fs.attributes import SetAttributes
from ciaosfs.fs.commit import CommitStatistics, CommitStatus
from ciaosfs.fs.filesystem import FileSystemStatus
from ciaosfs.fs.requester import Requester
from ciaosfs.fs.statistics import CacheCounts, FileSystemStatistics
from ciaosfs.meta.dentries import ListedRow
from ciaosfs.meta.inodes import Inode
from ciaosfs.stripe.reader import ReaderStatistics
from ciaosfs.stripe.store import ChunkStoreStatistics
from ciaosfs.stripe.writer import WriterStatistics
from ciaosfs.volume.driveset import DriveState, DriveStatus

SLOW_S = 0.5
TOTAL_BYTES = 64 << 30


class MemoryFileSystem:
    """A tree in memory with root inode 1."""

    def __init__(self) -> None:
        self.parts: object = None
        self._numbers = itertools.count(2)
        self._handles: dict[int, int] = {}
        self._next_handle = itertools.count(1)
        root = _inode(1, stat.S_IFDIR | 0o755, os.getuid(), os.getgid(), 0, 1)
        self.inodes: dict[int, Inode] = {1: root._replace(nlink=2)}
        self._entries: dict[int, dict[bytes, tuple[int, int]]] = {1: {}}
        self._cookies = itertools.count(16)
        self._data: dict[int, bytearray] = {}
        self._xattrs: dict[int, dict[bytes, bytes]] = {}
        self._special: dict[int, bytes] = {}
        self.counts = {"lookups": 0, "syncs": 0, "forgotten": 0, "largest_read": 0}

    def lookup(self, parent: int, name: bytes) -> Inode | None:
        self.counts["lookups"] += 1
        if len(name) > 255:
            raise FsError(errno.ENAMETOOLONG)
        entry = self._entries[parent].get(name)
        return None if entry is None else self.inodes[entry[1]]

    def getattr(self, ino: int) -> Inode:
        try:
            return self.inodes[ino]
        except KeyError:
            raise FsError(errno.ENOENT) from None

    def pending_bytes_of(self, ino: int) -> int:
        return len(self._data.get(ino, b""))

    def readlink(self, ino: int) -> bytes:
        target = self.inodes[ino].target
        if target is None:
            raise FsError(errno.EINVAL)
        return target

    def list_directory(self, ino: int, cookie: int, limit: int) -> list[ListedRow]:
        names = sorted((at, name, child) for name, (at, child) in self._entries[ino].items() if at > cookie)
        rows: list[ListedRow] = []
        for at, name, child in names[:limit]:
            i = self.inodes[child]
            shown = (i.mode, i.nlink, i.uid, i.gid, i.rdev, i.size, i.atime_ns, i.mtime_ns, i.ctime_ns)
            rows.append((at, name, i.ino, *shown, i.allocated))
        return rows

    def use_idle_moment(self) -> bool:
        return False

    def settle(self) -> None:
        pass

    def list_ahead(self) -> None:
        return None

    def list_grown(self) -> None:
        return None

    async def wait_cut(self) -> None:
        await trio.sleep_forever()

    @property
    def listing_mark(self) -> tuple[int, int]:
        return 0, 1

    def getxattr(self, ino: int, name: bytes) -> bytes | None:
        if name == b"user.test.counts":
            return json.dumps(self.counts).encode()
        return self._xattrs.get(ino, {}).get(name)

    def listxattr(self, ino: int) -> list[bytes]:
        return list(self._xattrs.get(ino, {}))

    def space(self) -> Space:
        return Space(TOTAL_BYTES, TOTAL_BYTES // 2, TOTAL_BYTES // 4)

    def inode_count(self) -> int:
        return len(self.inodes)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, who: Requester
    ) -> tuple[int, Inode]:
        inode = await self.mknod(parent, name, stat.S_IFREG | mode & 0o7777, 0, who)
        return self._open(inode.ino), inode

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, who: Requester) -> Inode:
        return self._make(parent, name, mode, rdev, who, None)

    async def mkdir(self, parent: int, name: bytes, mode: int, who: Requester) -> Inode:
        return self._make(parent, name, stat.S_IFDIR | mode & 0o7777, 0, who, None)

    async def symlink(self, parent: int, name: bytes, target: bytes, who: Requester) -> Inode:
        return self._make(parent, name, stat.S_IFLNK | 0o777, 0, who, target)

    async def link(self, ino: int, parent: int, name: bytes) -> Inode:
        if name in self._entries[parent]:
            raise FsError(errno.EEXIST)
        self._entries[parent][name] = (next(self._cookies), ino)
        return self._change(ino, nlink=self.inodes[ino].nlink + 1)

    async def unlink(self, parent: int, name: bytes) -> None:
        self._drop(parent, name)

    async def rmdir(self, parent: int, name: bytes) -> None:
        if self._entries[self._named(parent, name)]:
            raise FsError(errno.ENOTEMPTY)
        self._drop(parent, name)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        ino = self._named(parent, name)
        if flags & 1 and new_name in self._entries[new_parent]:
            raise FsError(errno.EEXIST)
        if flags & ~1:
            raise FsError(errno.EINVAL)
        if new_name in self._entries[new_parent]:
            self._drop(new_parent, new_name)
        del self._entries[parent][name]
        self._entries[new_parent][new_name] = (next(self._cookies), ino)

    async def setattr(self, ino: int, changes: SetAttributes, who: Requester) -> Inode:
        inode = self.getattr(ino)
        if changes.size is not None and ino in self._data:
            data = self._data[ino]
            del data[changes.size :]
            data.extend(bytes(changes.size - len(data)))
        mode = None if changes.mode is None else stat.S_IFMT(inode.mode) | stat.S_IMODE(changes.mode)
        wanted = changes._replace(mode=mode)._asdict()
        return self._change(ino, **{name: value for name, value in wanted.items() if value is not None})

    async def setxattr(self, ino: int, name: bytes, value: bytes, who: Requester) -> None:
        self._xattrs.setdefault(ino, {})[name] = value

    async def removexattr(self, ino: int, name: bytes) -> None:
        if self._xattrs.get(ino, {}).pop(name, None) is None:
            raise FsError(errno.ENODATA)

    async def open(self, ino: int, flags: int, who: Requester) -> int:
        if flags & os.O_TRUNC:
            await self.setattr(ino, SetAttributes(size=0), who)
        return self._open(ino)

    def release(self, fh: int) -> None:
        del self._handles[fh]

    def read_nowait(self, fh: int, offset: int, size: int) -> Buffer | None:
        ino = self._handles[fh]
        self.counts["largest_read"] = max(self.counts["largest_read"], size)
        if ino in self._special:
            return None
        return memoryview(self._data[ino])[offset : offset + size].tobytes()

    async def read(self, fh: int, offset: int, size: int) -> Buffer:
        ino = self._handles[fh]
        self.counts["largest_read"] = max(self.counts["largest_read"], size)
        match self._special.get(ino):
            case b"bug":
                raise ZeroDivisionError("a bug behind the edge")
            case b"lost":
                raise StripeLostError("Stripe 1 has lost more shards than its parity can replace.")
            case b"slow":
                await trio.sleep(SLOW_S)
        return bytes(self._data[ino][offset : offset + size])

    async def write(self, fh: int, offset: int, data: Buffer) -> int:
        ino = self._handles[fh]
        content = self._data[ino]
        if offset > len(content):
            content.extend(bytes(offset - len(content)))
        content[offset : offset + len(data)] = data
        if len(content) > self.inodes[ino].size:
            self._change(ino, size=len(content))
        return len(data)

    async def fsync(self, fh: int) -> None:
        self.counts["syncs"] += 1

    async def sync(self) -> None:
        self.counts["syncs"] += 1

    def forget_later(self, inodes: Sequence[int]) -> None:
        self.counts["forgotten"] += len(inodes)

    async def stripes_by_missing(self) -> dict[int, int]:
        return self.status().stripes_by_missing

    async def stripes_by_spare(self, found_lost: Collection[int] = ()) -> dict[int, int]:
        return {1: 3}

    def status(self) -> FileSystemStatus:
        drive = DriveStatus(0, "/drives/d0", DriveState.ONLINE, TOTAL_BYTES // 2, TOTAL_BYTES, "")
        commit = CommitStatus(7, time.time_ns() - 1_400_000_000, None)
        return FileSystemStatus(
            space=self.space(),
            inodes=len(self.inodes),
            stripes_by_missing={0: 12, 1: 3},
            drives=(drive,),
            pending_bytes=4096,
            open_handles=len(self._handles),
            commit=commit,
            reports=("Nothing was lost.",),
        )

    def statistics(self) -> FileSystemStatistics:
        reads = ReaderStatistics(90, 10, 1, 2, 1, 0, 0, 5, 4, 8, 3)
        chunks = ChunkStoreStatistics(
            reads, WriterStatistics(8, 3, 0, 1 << 20), 7, 7, 0, 2, 2, DriveCallStatistics((), (), 0)
        )
        return FileSystemStatistics(
            CacheCounts((90, 10), (96, 4), (80, 20), (3, 1)),
            CommitStatistics(7, 0, 0.7, 0.1),
            chunks,
            WorkerStatistics(2, 0, 0),
        )

    def _open(self, ino: int) -> int:
        fh = next(self._next_handle)
        self._handles[fh] = ino
        return fh

    def _make(
        self, parent: int, name: bytes, mode: int, rdev: int, who: Requester, target: bytes | None
    ) -> Inode:
        if name in self._entries[parent]:
            raise FsError(errno.EEXIST)
        ino = next(self._numbers)
        inode = _inode(ino, mode, who.uid, who.gid, rdev, parent)
        if target is not None:
            inode = inode._replace(target=target, size=len(target))
        if stat.S_ISDIR(mode):
            inode = inode._replace(nlink=2)
            self._entries[ino] = {}
        elif stat.S_ISREG(mode):
            self._data[ino] = bytearray()
            if name in (b"bug", b"lost", b"slow"):
                self._special[ino] = name
        self.inodes[ino] = inode
        self._entries[parent][name] = (next(self._cookies), ino)
        return inode

    def _named(self, parent: int, name: bytes) -> int:
        try:
            return self._entries[parent][name][1]
        except KeyError:
            raise FsError(errno.ENOENT) from None

    def _drop(self, parent: int, name: bytes) -> None:
        ino = self._named(parent, name)
        del self._entries[parent][name]
        self._change(ino, nlink=self.inodes[ino].nlink - 1)

    def _change(self, ino: int, **fields: int) -> Inode:
        changed = self.inodes[ino] = self.inodes[ino]._replace(**fields)  # type: ignore[arg-type]
        return changed


def _inode(ino: int, mode: int, uid: int, gid: int, rdev: int, parent: int) -> Inode:
    now = time.time_ns()
    return Inode(
        ino=ino,
        mode=mode,
        nlink=1,
        uid=uid,
        gid=gid,
        rdev=rdev,
        size=0,
        atime_ns=now,
        mtime_ns=now,
        ctime_ns=now,
        btime_ns=now,
        parent=parent,
        allocated=0,
        flags=0,
        target=None,
    )
