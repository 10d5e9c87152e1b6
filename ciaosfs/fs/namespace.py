"""The tree: names, links and directories. Every function is one step of the open transaction, without an await.

The kernel has checked permissions (`default_permissions`), sticky directories and that a directory is not moved below
itself. What is left here: existence, kinds, emptiness, link counts, times, and what a child inherits.

A directory's nlink is 2 plus its subdirectories. `parent` of a directory is exact; of anything else it is a directory
that has a name of it, or 0 where none is known any more: who is let in by a path may rely on it. An inode without
links stays, with nlink 0, until nobody uses it: `reclaim` purges it, after a crash as well.
"""

from __future__ import annotations

import errno
import stat

from ciaosfs.base import clock, limits
from ciaosfs.base.errors import FsError
from ciaosfs.fs import xattrs
from ciaosfs.fs.requester import Requester
from ciaosfs.meta.inodes import ROOT_INO, Inode
from ciaosfs.meta.metadata import Metadata

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
"""As in linux/fs.h."""


def load_directory(meta: Metadata, ino: int) -> Inode:
    """The directory's inode; ENOENT when it is gone or removed, ENOTDIR when it is something else."""
    inode = meta.inodes.load(ino)
    if inode is None or inode.nlink == 0:
        raise FsError(errno.ENOENT)
    if not stat.S_ISDIR(inode.mode):
        raise FsError(errno.ENOTDIR)
    return inode


def create_root(meta: Metadata, who: Requester) -> None:
    """The root directory of a new store: it is its own parent and belongs to who mounts the store first."""
    now = clock.FILES.now_ns()
    meta.inodes.insert(
        Inode(
            ino=ROOT_INO,
            mode=stat.S_IFDIR | 0o755,
            nlink=2,
            uid=who.uid,
            gid=who.gid,
            rdev=0,
            size=0,
            atime_ns=now,
            mtime_ns=now,
            ctime_ns=now,
            btime_ns=now,
            parent=ROOT_INO,
            flags=0,
        )
    )


def create(
    meta: Metadata,
    parent: int,
    name: bytes,
    mode: int,
    who: Requester,
    *,
    rdev: int = 0,
    target: bytes | None = None,
) -> Inode:
    """Make an inode of the kind in `mode` and link it as `name`. EEXIST, ENOENT, ENAMETOOLONG, EMLINK."""
    check_name(name)
    directory = load_directory(meta, parent)
    is_directory = stat.S_ISDIR(mode)
    if is_directory and directory.nlink >= limits.LINK_MAX:
        raise FsError(errno.EMLINK)
    now = clock.FILES.now_ns()
    mode, flags, given = xattrs.inherit(meta, directory, mode)
    gid = who.gid
    if directory.mode & stat.S_ISGID:
        gid = directory.gid
        if is_directory:
            mode |= stat.S_ISGID
    inode = Inode(
        ino=meta.inodes.take_ino(),
        mode=mode,
        nlink=2 if is_directory else 1,
        uid=who.uid,
        gid=gid,
        rdev=rdev,
        size=len(target) if target is not None else 0,
        atime_ns=now,
        mtime_ns=now,
        ctime_ns=now,
        btime_ns=now,
        parent=parent,
        allocated=0,
        flags=flags,
        target=target,
    )
    meta.dentries.insert(parent, name, inode.ino)
    meta.inodes.insert(inode)
    for key, value in given:
        meta.xattrs.set(inode.ino, key, value)
    _changed(meta, directory, now, 1 if is_directory else 0)
    return inode


def link(meta: Metadata, ino: int, parent: int, name: bytes) -> Inode:
    """A further name for an inode that is not a directory. EPERM, EMLINK, EEXIST, ENOENT."""
    check_name(name)
    directory = load_directory(meta, parent)
    inode = meta.inodes.load(ino)
    if inode is None or inode.nlink == 0:
        raise FsError(errno.ENOENT)
    if stat.S_ISDIR(inode.mode):
        raise FsError(errno.EPERM)
    if inode.nlink >= limits.LINK_MAX:
        raise FsError(errno.EMLINK)
    now = clock.FILES.now_ns()
    meta.dentries.insert(parent, name, ino)
    linked = inode._replace(nlink=inode.nlink + 1, ctime_ns=now, parent=inode.parent or parent)
    meta.inodes.update(linked)
    _changed(meta, directory, now, 0)
    return linked


def unlink(meta: Metadata, parent: int, name: bytes) -> Inode:
    """Remove a name that is not a directory's; returns the inode as it is then (nlink may be 0)."""
    directory = load_directory(meta, parent)
    inode = _named(meta, parent, name)
    if stat.S_ISDIR(inode.mode):
        raise FsError(errno.EISDIR)
    now = clock.FILES.now_ns()
    meta.dentries.remove(parent, name)
    left = _unlinked(meta, inode, parent, now)
    _changed(meta, directory, now, 0)
    return left


def rmdir(meta: Metadata, parent: int, name: bytes) -> Inode:
    """Remove an empty directory; returns its inode with nlink 0."""
    directory = load_directory(meta, parent)
    inode = _named(meta, parent, name)
    if not stat.S_ISDIR(inode.mode):
        raise FsError(errno.ENOTDIR)
    if not meta.dentries.is_empty(inode.ino):
        raise FsError(errno.ENOTEMPTY)
    now = clock.FILES.now_ns()
    meta.dentries.remove(parent, name)
    left = _unlinked(meta, inode, parent, now)
    _changed(meta, directory, now, -1)
    return left


def rename(
    meta: Metadata, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
) -> Inode | None:
    """Move a name, replacing what the new name stood for. Returns the replaced inode as it is then, if any.

    NOREPLACE refuses an existing target with EEXIST; EXCHANGE swaps two existing names of any kind.
    """
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) or flags == RENAME_NOREPLACE | RENAME_EXCHANGE:
        raise FsError(errno.EINVAL)
    check_name(new_name)
    source = load_directory(meta, parent)
    destination = source if new_parent == parent else load_directory(meta, new_parent)
    inode = _named(meta, parent, name)
    other = meta.dentries.lookup_inode(new_parent, new_name)
    if flags == RENAME_EXCHANGE:
        if other is None:
            raise FsError(errno.ENOENT)
        _exchange(meta, source, name, inode, destination, new_name, other)
        return None
    if other is not None:
        if flags == RENAME_NOREPLACE:
            raise FsError(errno.EEXIST)
        if other.ino == inode.ino:
            return None  # two names of one inode: POSIX wants nothing done
        _check_replace(meta, inode, other)
    is_directory = stat.S_ISDIR(inode.mode)
    if is_directory and source is not destination and destination.nlink >= limits.LINK_MAX and other is None:
        raise FsError(errno.EMLINK)
    now = clock.FILES.now_ns()
    replaced: Inode | None = None
    if other is None:
        meta.dentries.insert(new_parent, new_name, inode.ino)
    else:
        meta.dentries.repoint(new_parent, new_name, inode.ino)
        replaced = _unlinked(meta, other, new_parent, now)
    meta.dentries.remove(parent, name)
    meta.inodes.update(inode._replace(parent=new_parent, ctime_ns=now))
    lost = 1 if is_directory and other is not None else 0
    if source is destination:
        _changed(meta, source, now, -lost)
    else:
        moved = 1 if is_directory else 0
        _changed(meta, source, now, -moved)
        _changed(meta, destination, now, moved - lost)
    return replaced


def with_a_name_less(inode: Inode, parent: int, now: int) -> Inode:
    """As it is without its name in `parent`; a directory loses its own two links at once.

    Where the other names are is not known. What has none left keeps its parent: it is open, and was found there.
    """
    nlink = 0 if stat.S_ISDIR(inode.mode) else inode.nlink - 1
    known = 0 if nlink and inode.parent == parent else inode.parent
    return inode._replace(nlink=nlink, ctime_ns=now, parent=known)


def check_name(name: bytes) -> None:
    """ENAMETOOLONG, EINVAL unless a directory may have a name like this."""
    if len(name) > limits.NAME_BYTES_MAX:
        raise FsError(errno.ENAMETOOLONG)
    if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise FsError(errno.EINVAL)


def _named(meta: Metadata, parent: int, name: bytes) -> Inode:
    inode = meta.dentries.lookup_inode(parent, name)
    if inode is None:
        raise FsError(errno.ENOENT)
    return inode


def _check_replace(meta: Metadata, inode: Inode, other: Inode) -> None:
    if stat.S_ISDIR(inode.mode):
        if not stat.S_ISDIR(other.mode):
            raise FsError(errno.ENOTDIR)
        if not meta.dentries.is_empty(other.ino):
            raise FsError(errno.ENOTEMPTY)
    elif stat.S_ISDIR(other.mode):
        raise FsError(errno.EISDIR)


def _unlinked(meta: Metadata, inode: Inode, parent: int, now: int) -> Inode:
    left = with_a_name_less(inode, parent, now)
    meta.inodes.update(left)
    return left


def _changed(meta: Metadata, directory: Inode, now: int, subdirectories: int) -> None:
    meta.inodes.touch(directory.ino, now, now, subdirectories)


def _exchange(
    meta: Metadata,
    source: Inode,
    name: bytes,
    inode: Inode,
    destination: Inode,
    new_name: bytes,
    other: Inode,
) -> None:
    if inode.ino == other.ino:
        return
    now = clock.FILES.now_ns()
    meta.dentries.repoint(source.ino, name, other.ino)
    meta.dentries.repoint(destination.ino, new_name, inode.ino)
    meta.inodes.update(inode._replace(parent=destination.ino, ctime_ns=now))
    meta.inodes.update(other._replace(parent=source.ino, ctime_ns=now))
    if source is destination:
        _changed(meta, source, now, 0)
        return
    balance = int(stat.S_ISDIR(other.mode)) - int(stat.S_ISDIR(inode.mode))
    _changed(meta, source, now, balance)
    _changed(meta, destination, now, -balance)
