"""The ceiling of the benchmark: files in memory behind pyfuse3's own request loop and the writeback cache.

It answers every call as quickly as a pyfuse3 handler can: an inode is one object that keeps the very
`EntryAttributes` the kernel is sent, a directory is a dict, a file is a list of 1 MiB segments. What pyfuse3
lets a file system leave out is left out (flush, fsync, access, xattrs): the kernel asks once, hears ENOSYS
and never asks again. `--peer` answers these too, as ciaosfs has to: that is a request more for each close and
for each write call (`security.capability`), and makes it a full peer for the differential test.

Invariants: `attributes.st_size` is the size; a segment may be shorter than its share of the file, the rest
reads as zeros; an inode without a name lives until the kernel forgets it.
"""

from __future__ import annotations

import argparse
import errno
import os
import stat
import sys
import time
from bisect import bisect_right
from collections.abc import Sequence
from typing import cast

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FlagT, FUSEError, InodeT, ModeT, RequestContext

NAME_BYTES_MAX = 255
NAMESPACES = (b"user.", b"trusted.", b"security.")
SEGMENT_BYTES = 1 << 20
"""The size of the largest FUSE write: a stream of whole segments is kept without copying a byte."""

Segment = bytes | bytearray


class Inode:
    """One file, directory or other node; `lookups` is the kernel's reference count."""

    __slots__ = ("attributes", "children", "lookups", "number", "segments", "target", "xattrs")

    def __init__(self, number: int, mode: int, ctx: RequestContext | None, parent: Inode | None) -> None:
        self.number = InodeT(number)
        self.lookups = 0
        self.segments: list[Segment] = []
        self.children: dict[bytes, Entry] = {}
        self.target = b""
        self.xattrs: dict[bytes, bytes] = {}
        attributes = self.attributes = EntryAttributes()
        attributes.st_ino = self.number
        attributes.st_uid = ctx.uid if ctx else os.getuid()
        attributes.st_gid = ctx.gid if ctx else os.getgid()
        if parent is not None and parent.attributes.st_mode & stat.S_ISGID:
            attributes.st_gid = parent.attributes.st_gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        attributes.st_mode = ModeT(mode)
        attributes.st_nlink = 2 if stat.S_ISDIR(mode) else 1
        now = time.time_ns()
        attributes.st_atime_ns = attributes.st_mtime_ns = attributes.st_ctime_ns = now

    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.attributes.st_mode)


class Entry:
    """A name in a directory. `cookie` rises with every insertion, so the dict is ordered by it."""

    __slots__ = ("cookie", "inode")

    def __init__(self, cookie: int, inode: Inode) -> None:
        self.cookie = cookie
        self.inode = inode


class Listing:
    """An open directory: the entries as they were when the listing began."""

    def __init__(self, inode: Inode) -> None:
        self.inode = inode
        self.rewind()

    def rewind(self) -> None:
        self.names = list(self.inode.children)
        self.cookies = [entry.cookie for entry in self.inode.children.values()]


class CeilingOperations(pyfuse3.Operations):
    """The handlers. None of them waits, so no lock is needed: each runs to its end before the next begins."""

    supports_dot_lookup = False
    enable_writeback_cache = True
    enable_acl = False

    def __init__(self) -> None:
        super().__init__()
        root = Inode(pyfuse3.ROOT_INODE, stat.S_IFDIR | 0o755, None, None)
        self.inodes: dict[int, Inode] = {root.number: root}
        self.listings: dict[int, Listing] = {}
        self.serial = int(pyfuse3.ROOT_INODE)
        self.absent = EntryAttributes()
        self.absent.st_ino = InodeT(0)  # the kernel remembers that there is no such name

    def _next(self) -> int:
        self.serial += 1
        return self.serial

    def _child(self, parent: int, name: bytes) -> Entry:
        entry = self.inodes[parent].children.get(name)
        if entry is None:
            raise FUSEError(errno.ENOENT)
        return entry

    def _insert(self, parent: int, name: bytes, mode: int, ctx: RequestContext) -> Inode:
        directory = self.inodes[parent]
        if name in directory.children:
            raise FUSEError(errno.EEXIST)
        inode = Inode(self._next(), mode, ctx, directory)
        inode.lookups = 1
        self.inodes[inode.number] = inode
        directory.children[name] = Entry(inode.number, inode)
        attributes = directory.attributes
        attributes.st_mtime_ns = attributes.st_ctime_ns = inode.attributes.st_ctime_ns
        return inode

    def _unname(self, parent: int, name: bytes, inode: Inode) -> None:
        """Take *name* away and let the inode go when nothing else holds it."""
        directory = self.inodes[parent]
        del directory.children[name]
        now = time.time_ns()
        directory.attributes.st_mtime_ns = directory.attributes.st_ctime_ns = now
        self._drop_link(directory, inode, now)

    def _drop_link(self, directory: Inode, inode: Inode, now: int) -> None:
        attributes = inode.attributes
        attributes.st_ctime_ns = now
        attributes.st_nlink -= 2 if inode.is_directory() else 1
        directory.attributes.st_nlink -= inode.is_directory()
        if not attributes.st_nlink and not inode.lookups:
            del self.inodes[inode.number]

    async def lookup(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> EntryAttributes:
        entry = self.inodes[parent_inode].children.get(name)
        if entry is None:
            if len(name) > NAME_BYTES_MAX:
                raise FUSEError(errno.ENAMETOOLONG)
            return self.absent
        entry.inode.lookups += 1
        return entry.inode.attributes

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for number, count in inode_list:
            inode = self.inodes[number]
            inode.lookups -= count
            if inode.lookups <= 0 and not inode.attributes.st_nlink:
                del self.inodes[number]

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self.inodes[inode].attributes

    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        node = self.inodes[inode]
        mine = node.attributes
        if fields.update_mtime:
            mine.st_mtime_ns = attr.st_mtime_ns
        mine.st_ctime_ns = attr.st_ctime_ns if fields.update_ctime else time.time_ns()
        if fields.update_size:
            _truncate(node, attr.st_size)
            if not fields.update_mtime:
                mine.st_mtime_ns = mine.st_ctime_ns
        if fields.update_mode:
            mine.st_mode = ModeT(stat.S_IFMT(mine.st_mode) | stat.S_IMODE(attr.st_mode))
        if fields.update_uid:
            mine.st_uid = attr.st_uid
        if fields.update_gid:
            mine.st_gid = attr.st_gid
        if fields.update_atime:
            mine.st_atime_ns = attr.st_atime_ns
        return mine

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> bytes:
        return self.inodes[inode].target

    async def mknod(
        self, parent_inode: InodeT, name: bytes, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        inode = self._insert(parent_inode, name, mode, ctx)
        inode.attributes.st_rdev = rdev
        return inode.attributes

    async def mkdir(
        self, parent_inode: InodeT, name: bytes, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        inode = self._insert(parent_inode, name, mode, ctx)
        self.inodes[parent_inode].attributes.st_nlink += 1
        return inode.attributes

    async def symlink(
        self, parent_inode: InodeT, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        inode = self._insert(parent_inode, name, stat.S_IFLNK | 0o777, ctx)
        inode.target = target
        inode.attributes.st_size = len(target)
        return inode.attributes

    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        node = self.inodes[inode]
        directory = self.inodes[new_parent_inode]
        if new_name in directory.children:
            raise FUSEError(errno.EEXIST)
        directory.children[new_name] = Entry(self._next(), node)
        now = time.time_ns()
        directory.attributes.st_mtime_ns = directory.attributes.st_ctime_ns = now
        node.attributes.st_ctime_ns = now
        node.attributes.st_nlink += 1
        node.lookups += 1
        return node.attributes

    async def unlink(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        inode = self._child(parent_inode, name).inode
        if inode.is_directory():
            raise FUSEError(errno.EISDIR)
        self._unname(parent_inode, name, inode)

    async def rmdir(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        inode = self._child(parent_inode, name).inode
        if not inode.is_directory():
            raise FUSEError(errno.ENOTDIR)
        if inode.children:
            raise FUSEError(errno.ENOTEMPTY)
        self._unname(parent_inode, name, inode)

    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: bytes,
        parent_inode_new: InodeT,
        name_new: bytes,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        moved = self._child(parent_inode_old, name_old).inode
        source, target = self.inodes[parent_inode_old], self.inodes[parent_inode_new]
        old = target.children.get(name_new)
        now = time.time_ns()
        if flags & pyfuse3.RENAME_EXCHANGE:
            if old is None:
                raise FUSEError(errno.ENOENT)
            self._place(source, name_old, old.inode, target, now)
        else:
            if old is not None:
                self._check_replace(moved, old.inode, flags)
                if old.inode is moved:
                    return
                self._drop_link(target, old.inode, now)
            del source.children[name_old]
        self._place(target, name_new, moved, source, now)
        for directory in (source, target):
            directory.attributes.st_mtime_ns = directory.attributes.st_ctime_ns = now

    def _check_replace(self, moved: Inode, replaced: Inode, flags: int) -> None:
        """Raise unless *moved* may take the name of *replaced*."""
        if flags & pyfuse3.RENAME_NOREPLACE:
            raise FUSEError(errno.EEXIST)
        if replaced.is_directory():
            if not moved.is_directory():
                raise FUSEError(errno.EISDIR)
            if replaced.children:
                raise FUSEError(errno.ENOTEMPTY)
        elif moved.is_directory():
            raise FUSEError(errno.ENOTDIR)

    def _place(self, directory: Inode, name: bytes, inode: Inode, previous: Inode, now: int) -> None:
        """Give *inode*, until now in *previous*, a name in *directory*, last in its order."""
        directory.children.pop(name, None)
        directory.children[name] = Entry(self._next(), inode)
        inode.attributes.st_ctime_ns = now
        if inode.is_directory() and directory is not previous:
            previous.attributes.st_nlink -= 1
            directory.attributes.st_nlink += 1

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        if flags & os.O_TRUNC:
            _truncate(self.inodes[inode], 0)
        return FileInfo(fh=FileHandleT(inode))

    async def create(
        self, parent_inode: InodeT, name: bytes, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        inode = self._insert(parent_inode, name, mode, ctx)
        return FileInfo(fh=FileHandleT(inode.number)), inode.attributes

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        # pyfuse3 takes any buffer here and hands it to the kernel before another request is looked at.
        return cast(bytes, _read(self.inodes[fh], off, size))

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        return _write(self.inodes[fh], off, buf)

    async def release(self, fh: FileHandleT) -> None:
        pass

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        number = self._next()
        self.listings[number] = Listing(self.inodes[inode])
        return FileHandleT(number)

    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self.listings[fh]
        if start_id == 0:
            listing.rewind()
        names, children = listing.names, listing.inode.children
        for index in range(bisect_right(listing.cookies, start_id), len(names)):
            name, cookie = names[index], listing.cookies[index]
            entry = children.get(name)
            if entry is None or entry.cookie != cookie:
                continue  # gone since the listing began
            if not pyfuse3.readdir_reply(token, name, entry.inode.attributes, cookie):
                return
            entry.inode.lookups += 1

    async def releasedir(self, fh: FileHandleT) -> None:
        del self.listings[fh]

    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = answer.f_frsize = 4096
        answer.f_blocks = answer.f_bfree = answer.f_bavail = 1 << 24
        answer.f_files = 1 << 32
        answer.f_ffree = answer.f_favail = (1 << 32) - len(self.inodes)
        answer.f_namemax = NAME_BYTES_MAX
        return answer


class PeerOperations(CeilingOperations):
    """The same with what a file system that keeps data is asked as well."""

    async def flush(self, fh: FileHandleT) -> None:
        pass

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        pass

    async def getxattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> bytes:
        value = self.inodes[inode].xattrs.get(name)
        if value is None:
            raise FUSEError(pyfuse3.ENOATTR if name.startswith(NAMESPACES) else errno.EOPNOTSUPP)
        return value

    async def setxattr(self, inode: InodeT, name: bytes, value: bytes, ctx: RequestContext) -> None:
        if not name.startswith(NAMESPACES):
            raise FUSEError(errno.EOPNOTSUPP)
        self.inodes[inode].xattrs[name] = value

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[bytes]:
        return list(self.inodes[inode].xattrs)

    async def removexattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        if self.inodes[inode].xattrs.pop(name, None) is None:
            raise FUSEError(pyfuse3.ENOATTR if name.startswith(NAMESPACES) else errno.EOPNOTSUPP)


def _write(inode: Inode, offset: int, data: bytes) -> int:
    """Put *data* at *offset*; a piece that covers all there is of a segment is kept as it came."""
    length = len(data)
    done = 0
    while done < length:
        index, start = divmod(offset + done, SEGMENT_BYTES)
        whole = not done and length <= SEGMENT_BYTES - start
        piece = data if whole else data[done : done + SEGMENT_BYTES - start]
        segments = inode.segments
        while len(segments) <= index:
            segments.append(b"")
        kept = segments[index]
        if start == 0 and len(piece) >= len(kept):
            segments[index] = piece
        else:
            if isinstance(kept, bytes):
                kept = segments[index] = bytearray(kept)
            if len(kept) < start:
                kept.extend(bytes(start - len(kept)))
            kept[start : start + len(piece)] = piece
        done += len(piece)
    attributes = inode.attributes
    if offset + length > attributes.st_size:
        attributes.st_size = offset + length
        attributes.st_blocks = (offset + length + 511) >> 9
    return length


def _read(inode: Inode, offset: int, size: int) -> Segment | memoryview:
    """Return up to *size* bytes at *offset*, without a copy when they lie in one segment."""
    end = min(offset + size, inode.attributes.st_size)
    pieces: list[Segment | memoryview] = []
    while offset < end:
        index, start = divmod(offset, SEGMENT_BYTES)
        length = min(SEGMENT_BYTES - start, end - offset)
        segment: Segment = inode.segments[index] if index < len(inode.segments) else b""
        if start or len(segment) != length:
            pieces.append(memoryview(segment)[start : start + length])
            pieces.append(bytes(length - len(pieces[-1])))
        else:
            pieces.append(segment)
        offset += length
    return pieces[0] if len(pieces) == 1 or (len(pieces) == 2 and not pieces[1]) else b"".join(pieces)


def _truncate(inode: Inode, size: int) -> None:
    """Make the file *size* bytes long; what a larger size adds reads as zeros."""
    attributes = inode.attributes
    if size < attributes.st_size:
        index, start = divmod(size, SEGMENT_BYTES)
        if index < len(inode.segments):
            inode.segments[index] = inode.segments[index][:start]
            del inode.segments[index + 1 :]
    attributes.st_size = size
    attributes.st_blocks = (size + 511) >> 9


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Mount the in-memory file system of tools/bench_mount.")
    parser.add_argument("mountpoint")
    parser.add_argument("--peer", action="store_true", help="answer flush, fsync and xattr requests too")
    options = parser.parse_args(arguments)
    mount_options = set(pyfuse3.default_options) | {"fsname=ceiling"}
    if os.getuid() == 0:
        mount_options |= {"allow_other", "dev", "suid"}
    operations = PeerOperations() if options.peer else CeilingOperations()
    pyfuse3.init(operations, options.mountpoint, mount_options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
