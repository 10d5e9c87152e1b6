"""The handlers: each turns one FUSE request into one call of the file system, and the answer into pyfuse3's types.

No handler catches anything: `errors.guarded` translates for all of them. Plain functions are handlers that never
wait. pyfuse3 does not need a handler for `access` (the kernel checks, by `default_permissions`), and `flush` is
answered ENOSYS, after which the kernel does not ask again at each close: with the writeback cache close(2) waits
for WRITE requests anyway, and what fails later is reported by fsync.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, ReaddirToken, RequestContext, SetattrFields, StatvfsData

from ciaosfs.base import limits
from ciaosfs.base.types import Buffer
from ciaosfs.fs.requester import Requester
from ciaosfs.meta.dentries import ListedRow
from ciaosfsd.fuse.attributes import BLOCK_BYTES, NO_ENTRY, ListingEntry, entry_attributes, wanted_changes
from ciaosfsd.fuse.errors import failure
from ciaosfsd.fuse.ready import ReadyListings

if TYPE_CHECKING:
    from ciaosfs.fs.filesystem import FileSystem

LISTING_ROWS_MIN, LISTING_ROWS_MAX = 32, 256
"""Directory entries fetched at once: as many as one answer has held so far, and one more. An answer of 4 KiB (older
kernels ask for no more) holds 20 to 25 of them, one of 32 KiB about 180."""
READ_INLINE_BYTES_MAX = 128 * limits.KIB
"""Larger reads go to a thread even when they are in the page cache: copying and verifying 1 MiB takes 0.4 ms, and runs there
beside the copying of the answer before it, which only the loop can do."""
DOT_COOKIE, DOTDOT_COOKIE = 1, 2
"""Below the cookies of all names, which begin at 16."""


class Handlers:
    """What `errors.guarded` makes pyfuse3's operations of: every public name here is one of theirs.

    Directory handles are inode numbers: cookies are stable, so a listing has no state.
    """

    supports_dot_lookup = True
    enable_writeback_cache = True
    enable_acl = True

    def __init__(self, filesystem: FileSystem, ready: ReadyListings | None = None) -> None:
        self._fs = filesystem
        self._listing_entry = ListingEntry()
        self._dots_entry = pyfuse3.EntryAttributes()
        """The kernel takes inode and type of these two from a listing, and nothing else."""
        self._dots_entry.st_mode = stat.S_IFDIR
        self._listing_rows = LISTING_ROWS_MIN
        self._ready = ready

    # Looking

    def lookup(self, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        inode = self._fs.lookup(parent, name)
        if inode is None:
            return self._lookup_dots(parent, name)
        return entry_attributes(inode, self._fs.pending_bytes_of(inode.ino))

    def _lookup_dots(self, ino: int, name: bytes) -> EntryAttributes:
        """How the kernel turns a file handle (open_by_handle_at(2), NFS) into an inode it has forgotten."""
        if name not in (b".", b".."):
            return NO_ENTRY
        inode = self._fs.getattr(ino)
        if name == b"..":
            inode = self._fs.getattr(inode.parent)
        if inode.nlink == 0:
            raise failure(errno.ENOENT)
        return entry_attributes(inode, self._fs.pending_bytes_of(inode.ino))

    def forget(self, counts: Sequence[tuple[int, int]]) -> None:
        # The kernel sends one FORGET with all lookups when it drops an inode, so nothing is counted here.
        self._fs.forget_later([ino for ino, _ in counts])

    def getattr(self, ino: int, ctx: RequestContext) -> EntryAttributes:
        return entry_attributes(self._fs.getattr(ino), self._fs.pending_bytes_of(ino))

    def readlink(self, ino: int, ctx: RequestContext) -> bytes:
        return self._fs.readlink(ino)

    def opendir(self, ino: int, ctx: RequestContext) -> int:
        return ino

    def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        if start_id < DOTDOT_COOKIE and not self._list_dots(fh, start_id, token):
            return
        fs, reply = self._fs, pyfuse3.readdir_reply
        # The beginning has one name, whatever was said before it.
        cookie, limit, sent = start_id if start_id > DOTDOT_COOKIE else 0, self._listing_rows, 0
        while True:
            rows = fs.list_directory(fh, cookie, limit)
            entries = None if self._ready is None else self._ready.entries(fh, cookie, rows)
            if entries is not None:
                for name, attributes, number in entries:
                    if not reply(token, name, attributes, number):
                        return
            elif not self._list_rows(token, rows):
                return
            sent += len(rows)
            if sent >= self._listing_rows:
                self._listing_rows = min(sent + 1, LISTING_ROWS_MAX)
            if len(rows) < limit:
                return
            cookie = rows[-1][0]

    def _list_rows(self, token: ReaddirToken, rows: Sequence[ListedRow]) -> bool:
        """Reply with them; False when the reply is full."""
        fs, reply, fill = self._fs, pyfuse3.readdir_reply, self._listing_entry.fill
        is_pending = fs.listing_mark[1] != 0
        for row in rows:
            pending_bytes = fs.pending_bytes_of(row[2]) if is_pending else 0
            if not reply(token, row[1], fill(row, pending_bytes), row[0]):
                return False
        return True

    def _list_dots(self, ino: int, start_id: int, token: ReaddirToken) -> bool:
        """The entries "." and "..", which are no rows; False when the reply is full. A removed directory has none."""
        directory = self._fs.getattr(ino)
        if directory.nlink == 0:
            return True
        entry = self._dots_entry
        for cookie, name, number in ((DOT_COOKIE, b".", ino), (DOTDOT_COOKIE, b"..", directory.parent)):
            if cookie > start_id:
                entry.st_ino = number
                if not pyfuse3.readdir_reply(token, name, entry, cookie):
                    return False
        return True

    def releasedir(self, fh: int) -> None:
        pass

    def statfs(self, ctx: RequestContext) -> StatvfsData:
        space = self._fs.space()
        inodes = self._fs.inode_count()
        data = StatvfsData()
        data.f_bsize = data.f_frsize = BLOCK_BYTES
        data.f_blocks = space.total // BLOCK_BYTES
        data.f_bfree = space.free // BLOCK_BYTES
        data.f_bavail = space.available // BLOCK_BYTES
        # Inodes are rows, so there is no number of them: as many as blocks could hold something.
        data.f_ffree = data.f_favail = data.f_bavail
        data.f_files = inodes + data.f_ffree
        data.f_namemax = limits.NAME_BYTES_MAX
        return data

    def getxattr(self, ino: int, name: bytes, ctx: RequestContext) -> bytes:
        # The kernel asks for security.capability before each write(2); nothing switches that off from here.
        value = self._fs.getxattr(ino, name)
        if value is None:
            raise failure(errno.ENODATA)
        return value

    def listxattr(self, ino: int, ctx: RequestContext) -> Sequence[bytes]:
        return self._fs.listxattr(ino)

    # Changing the tree

    async def setattr(
        self, ino: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        inode = await self._fs.setattr(ino, wanted_changes(attr, fields), _requester(ctx))
        return entry_attributes(inode, self._fs.pending_bytes_of(ino))

    async def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        return entry_attributes(await self._fs.mknod(parent, name, mode, rdev, _requester(ctx)))

    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        return entry_attributes(await self._fs.mkdir(parent, name, mode, _requester(ctx)))

    async def symlink(self, parent: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        return entry_attributes(await self._fs.symlink(parent, name, target, _requester(ctx)))

    async def link(self, ino: int, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        return entry_attributes(await self._fs.link(ino, parent, name), self._fs.pending_bytes_of(ino))

    async def unlink(self, parent: int, name: bytes, ctx: RequestContext) -> None:
        await self._fs.unlink(parent, name)

    async def rmdir(self, parent: int, name: bytes, ctx: RequestContext) -> None:
        await self._fs.rmdir(parent, name)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, ctx: RequestContext
    ) -> None:
        await self._fs.rename(parent, name, new_parent, new_name, flags)

    async def setxattr(self, ino: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        await self._fs.setxattr(ino, name, value, _requester(ctx))

    async def removexattr(self, ino: int, name: bytes, ctx: RequestContext) -> None:
        await self._fs.removexattr(ino, name)

    # Files

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        fh, inode = await self._fs.create(parent, name, mode, flags, _requester(ctx))
        return FileInfo(fh=fh, keep_cache=True), entry_attributes(inode)

    async def open(self, ino: int, flags: int, ctx: RequestContext) -> FileInfo:
        return FileInfo(fh=await self._fs.open(ino, flags, _requester(ctx)), keep_cache=True)

    async def read(self, fh: int, offset: int, size: int) -> Buffer:
        if size <= READ_INLINE_BYTES_MAX:
            data = self._fs.read_nowait(fh, offset, size)
            if data is not None:
                return data
        return await self._fs.read(fh, offset, size)

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        return await self._fs.write(fh, offset, data)

    def flush(self, fh: int) -> None:
        raise failure(errno.ENOSYS)

    def release(self, fh: int) -> None:
        self._fs.release(fh)

    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._fs.fsync(fh)

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self._fs.sync()


def _requester(ctx: RequestContext) -> Requester:
    return Requester(ctx.uid, ctx.gid, ctx.pid, ctx.umask)
