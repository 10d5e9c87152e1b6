"""The handlers of a mount that tokens guard: each judges who asks before it does what it does without them.

What the kernel does by itself is let through, or somebody's data would be lost, or a sync of one fail by the token of
another. It writes pages through any handle of the file (`handles.py`), and with its writeback cache it keeps the times
of files and sends them whenever it likes, as whoever happens to run. With a handle nobody but the kernel sends
times alone. Without one they look as those of utimensat(2) do; but then the kernel has nothing to say except when a
name or an attribute changed, which the daemon knows, so nothing is changed, and nothing refused.

Nothing is answered for longer than the request: entries, attributes and names that are not there are looked up for
each process anew. Pages stay in the kernel's cache, which asks for the attributes before each read(2) and write(2).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pyfuse3 import EntryAttributes, FileInfo, ReaddirToken, RequestContext, SetattrFields, StatvfsData

from ciaosfs.access.judge import Judge, refusal
from ciaosfs.access.policy import RULES, Rule, rule_to_create, rule_to_open
from ciaosfs.base.errors import AccessError
from ciaosfs.base.types import Buffer
from ciaosfs.fs import acl
from ciaosfsd.fuse.attributes import UNCACHED_S, ListingEntry, entry_attributes, uncached
from ciaosfsd.fuse.errors import failure
from ciaosfsd.fuse.handles import GuardedHandles
from ciaosfsd.fuse.operations import Handlers
from ciaosfsd.fuse.ready import ReadyListings

if TYPE_CHECKING:
    from ciaosfs.fs.filesystem import FileSystem

_CAPABILITY = b"security.capability"
"""Which the kernel asks for by itself, before each write(2)."""
_DOTS = (b".", b"..")
_GETATTR = RULES["getattr"]
_ACLS = (acl.ACCESS, acl.DEFAULT)


class GuardedHandlers(Handlers):
    """Handles of directories are numbers of `handles`; those of files are the file system's."""

    def __init__(
        self,
        filesystem: FileSystem,
        ready: ReadyListings,
        judge: Judge,
        handles: GuardedHandles,
        drop_pages: Callable[[int], None],
    ) -> None:
        """`ready` are listings that the kernel may not keep (`UNCACHED_S`); `drop_pages` has it forget the pages of an
        inode, some time later."""
        super().__init__(filesystem, ready)
        self._drop_pages = drop_pages
        self._listing_entry = ListingEntry(UNCACHED_S)
        self._judge = judge
        self._handles = handles

    # Looking

    def lookup(self, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        if name in _DOTS:
            return self._look_up_dots(parent, name, ctx)
        binding = self._judge.check_name(parent, name, ctx.pid, ctx.uid)
        inode = self._fs.lookup(parent, name)
        if inode is None:
            raise failure(errno.ENOENT)
        if binding is not None:
            self._judge.places.learn(binding.grant.prefix, parent, name, inode)
        return uncached(entry_attributes(inode, self._fs.pending_bytes_of(inode.ino)))

    def _look_up_dots(self, ino: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        found = self._lookup_dots(ino, name)
        self._judge.check(_GETATTR, found.st_ino, ctx.pid, ctx.uid)
        return uncached(found)

    def getattr(self, ino: int, ctx: RequestContext) -> EntryAttributes:
        binding = self._judge.identify(ctx.pid, ctx.uid)
        inode = self._fs.getattr(ino)
        if binding is not None and not (
            self._judge.may(binding, _GETATTR, inode) or self._handles.is_held_by(binding, ino)
        ):
            raise refusal()
        return uncached(entry_attributes(inode, self._fs.pending_bytes_of(ino)))

    def _check_or_held(self, rule: Rule, ino: int, ctx: RequestContext) -> None:
        """As `Judge.check`; a file that is open is where it was when it was opened."""
        try:
            self._judge.check(rule, ino, ctx.pid, ctx.uid)
        except AccessError:
            binding = self._judge.identify(ctx.pid, ctx.uid)
            if binding is None or rule.scopes & ~binding.scopes or not self._handles.is_held_by(binding, ino):
                raise

    def readlink(self, ino: int, ctx: RequestContext) -> bytes:
        self._judge.check(RULES["readlink"], ino, ctx.pid, ctx.uid)
        return super().readlink(ino, ctx)

    def opendir(self, ino: int, ctx: RequestContext) -> int:
        binding = self._judge.check(RULES["opendir"], ino, ctx.pid, ctx.uid)
        return self._handles.opened_directory(ino, binding)

    def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        super().readdir(self._handles.check_directory(fh), start_id, token)

    def releasedir(self, fh: int) -> None:
        self._handles.released_directory(fh)

    def statfs(self, ctx: RequestContext) -> StatvfsData:
        self._judge.identify(ctx.pid, ctx.uid)
        return super().statfs(ctx)

    def getxattr(self, ino: int, name: bytes, ctx: RequestContext) -> bytes:
        if name in _ACLS:
            self._check_or_held(RULES["getacl"], ino, ctx)
        elif name != _CAPABILITY and not self._shows_xattrs(ino, ctx):
            raise failure(errno.ENODATA)
        return super().getxattr(ino, name, ctx)

    def listxattr(self, ino: int, ctx: RequestContext) -> Sequence[bytes]:
        return super().listxattr(ino, ctx) if self._shows_xattrs(ino, ctx) else []

    def _shows_xattrs(self, ino: int, ctx: RequestContext) -> bool:
        """False above the prefix: ls(1) asks for those of "..", and is told that there are none."""
        try:
            self._judge.check(RULES["getxattr"], ino, ctx.pid, ctx.uid)
        except AccessError:
            self._judge.check(_GETATTR, ino, ctx.pid, ctx.uid)
            return False
        return True

    # Changing the tree

    async def setattr(
        self, ino: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        is_kernels = _are_times_of_writing(fields)
        if not (is_kernels and fh is not None):
            try:
                self._check_or_held(RULES["change"], ino, ctx)
            except AccessError:
                if is_kernels and self._fs.getattr(ino).mtime_ns == attr.st_mtime_ns:
                    return uncached(super().getattr(ino, ctx))
                raise
        return uncached(await super().setattr(ino, attr, fields, fh, ctx))

    async def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        self._judge.check(RULES["make"], parent, ctx.pid, ctx.uid)
        return uncached(await super().mknod(parent, name, mode, rdev, ctx))

    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        self._judge.check(RULES["make"], parent, ctx.pid, ctx.uid)
        return uncached(await super().mkdir(parent, name, mode, ctx))

    async def symlink(self, parent: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        self._judge.check(RULES["make"], parent, ctx.pid, ctx.uid)
        return uncached(await super().symlink(parent, name, target, ctx))

    async def link(self, ino: int, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        self._judge.check(RULES["link"], ino, ctx.pid, ctx.uid)
        self._judge.check(RULES["link"], parent, ctx.pid, ctx.uid)
        return uncached(await super().link(ino, parent, name, ctx))

    async def unlink(self, parent: int, name: bytes, ctx: RequestContext) -> None:
        self._judge.check(RULES["remove"], parent, ctx.pid, ctx.uid)
        await super().unlink(parent, name, ctx)

    async def rmdir(self, parent: int, name: bytes, ctx: RequestContext) -> None:
        self._judge.check(RULES["remove"], parent, ctx.pid, ctx.uid)
        await super().rmdir(parent, name, ctx)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, ctx: RequestContext
    ) -> None:
        self._judge.check(RULES["rename"], parent, ctx.pid, ctx.uid)
        self._judge.check(RULES["rename"], new_parent, ctx.pid, ctx.uid)
        await super().rename(parent, name, new_parent, new_name, flags, ctx)

    async def setxattr(self, ino: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        self._judge.check(RULES["change"], ino, ctx.pid, ctx.uid)
        await super().setxattr(ino, name, value, ctx)

    async def removexattr(self, ino: int, name: bytes, ctx: RequestContext) -> None:
        self._judge.check(RULES["change"], ino, ctx.pid, ctx.uid)
        await super().removexattr(ino, name, ctx)

    # Files

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        binding = self._judge.check(rule_to_create(flags), parent, ctx.pid, ctx.uid)
        info, entry = await super().create(parent, name, mode, flags, ctx)
        self._handles.opened(info.fh, entry.st_ino, flags, binding)
        return info, uncached(entry)

    async def open(self, ino: int, flags: int, ctx: RequestContext) -> FileInfo:
        binding = self._judge.check(rule_to_open(flags), ino, ctx.pid, ctx.uid)
        info = await super().open(ino, flags, ctx)
        self._handles.opened(info.fh, ino, flags, binding)
        return info

    async def read(self, fh: int, offset: int, size: int) -> Buffer:
        self._handles.check_read(fh)
        return await super().read(fh, offset, size)

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        left_in = self._handles.left_behind_in(fh)
        if left_in is not None:
            # From a mapping that outlived its token: write(2) is refused before. An error would reach whoever syncs next.
            self._drop_pages(left_in)
            return len(data)
        return await super().write(fh, offset, data)

    def release(self, fh: int) -> None:
        self._handles.released(fh)
        super().release(fh)

    async def fsync(self, fh: int, datasync: bool) -> None:
        self._handles.check_sync(fh)
        await super().fsync(fh, datasync)

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        self._handles.check_directory(fh)
        await super().fsyncdir(fh, datasync)


def _are_times_of_writing(fields: SetattrFields) -> bool:
    """Whether modification and change times are to be set and nothing else: what the kernel sends by itself."""
    return (
        fields.update_mtime
        and fields.update_ctime
        and not (
            fields.update_atime
            or fields.update_mode
            or fields.update_uid
            or fields.update_gid
            or fields.update_size
        )
    )
