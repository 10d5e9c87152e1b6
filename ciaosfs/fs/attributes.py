"""Changing attributes: chmod, chown, utimens and truncate, as one request of several fields."""

from __future__ import annotations

import errno
import stat
from typing import NamedTuple

from ciaosfs.base import clock, limits
from ciaosfs.base.errors import FsError
from ciaosfs.fs import acl
from ciaosfs.fs.files import Files
from ciaosfs.fs.requester import Requester
from ciaosfs.meta.inodes import FLAG_ACL_ACCESS, Inode
from ciaosfs.meta.metadata import Metadata

TRUNCATE_END = limits.FILE_BYTES_MAX * 2


class SetAttributes(NamedTuple):
    """What to change; None leaves a field as it is. Times in nanoseconds since the epoch, size in bytes."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None


_TIMES = SetAttributes._fields.index("atime_ns")
_NOTHING = (None,) * _TIMES


def set_attributes(
    meta: Metadata, files: Files, ino: int, changes: SetAttributes, who: Requester, now: int = 0
) -> Inode:
    """Apply `changes` in one step and return the inode as it is then. ENOENT when it is gone, EFBIG, EINVAL."""
    now = now or clock.FILES.now_ns()
    if changes.ctime_ns is not None:  # nobody but the kernel sets it
        clock.FILES.saw(changes.ctime_ns)
    if changes[:_TIMES] == _NOTHING:  # what the kernel says after each file it wrote back
        ctime_ns = now if changes.ctime_ns is None else changes.ctime_ns
        timed = meta.inodes.set_times(ino, changes.atime_ns, changes.mtime_ns, ctime_ns)
        if timed is None:
            raise FsError(errno.ENOENT)
        return timed
    inode = meta.inodes.load(ino)
    if inode is None:
        raise FsError(errno.ENOENT)
    mode, uid, gid, mtime_ns = inode.mode, inode.uid, inode.gid, inode.mtime_ns
    if changes.mode is not None:
        mode = stat.S_IFMT(mode) | changes.mode & 0o7777
        if inode.flags & FLAG_ACL_ACCESS:
            _follow_mode(meta, ino, mode)
    if changes.uid is not None or changes.gid is not None:
        uid = inode.uid if changes.uid is None else changes.uid
        gid = inode.gid if changes.gid is None else changes.gid
        if changes.mode is None and stat.S_ISREG(mode):
            mode = _without_privileges(mode)
    if changes.size is not None:
        truncate(meta, files, inode, changes.size)
        mtime_ns = now
        if changes.mode is None and who.uid != 0:
            mode = _without_privileges(mode)
    changed = inode._replace(
        mode=mode,
        uid=uid,
        gid=gid,
        size=inode.size if changes.size is None else changes.size,
        atime_ns=inode.atime_ns if changes.atime_ns is None else changes.atime_ns,
        mtime_ns=mtime_ns if changes.mtime_ns is None else changes.mtime_ns,
        ctime_ns=now if changes.ctime_ns is None else changes.ctime_ns,
    )
    meta.inodes.update(changed)
    return changed


def truncate(meta: Metadata, files: Files, inode: Inode, size: int) -> None:
    """Forget the bytes beyond `size`; what lies between the old and a larger size is a hole.

    No trim may be in the way of a larger size (`Slicer.is_in_way`).
    """
    if stat.S_ISDIR(inode.mode):
        raise FsError(errno.EISDIR)
    if not stat.S_ISREG(inode.mode):
        raise FsError(errno.EINVAL)
    if size > limits.FILE_BYTES_MAX:
        raise FsError(errno.EFBIG)
    if size >= inode.size:
        return
    file = files.get(inode.ino)
    if file is not None:
        file.overlay.truncate(size)
        files.account(file)
    if inode.allocated:
        _cut_extents(meta, inode.ino, size)


def _cut_extents(meta: Metadata, ino: int, size: int) -> None:
    """Delete the extents beyond `size`, or leave a row that says so where they are many or the transaction is large."""
    end = meta.trims.size(ino)
    if end is None:
        end = TRUNCATE_END
    is_large = meta.database.changeset_bytes > limits.COMMIT_CHANGESET_BYTES
    inline = limits.SLICE_EXTENTS if is_large else limits.TRUNCATE_EXTENTS_INLINE
    if meta.extents.has_more_than(inline, ino, size, end):
        meta.trims.put(ino, size)
    else:
        meta.extents.replace(ino, size, end, [])


def _without_privileges(mode: int) -> int:
    """The mode without set-user-id, and without set-group-id where that is not mandatory locking's mark."""
    mode &= ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP else mode


def _follow_mode(meta: Metadata, ino: int, mode: int) -> None:
    value = meta.xattrs.get(ino, acl.ACCESS)
    if value is not None:
        meta.xattrs.set(ino, acl.ACCESS, acl.encode(acl.with_mode(acl.decode(value), mode)))
