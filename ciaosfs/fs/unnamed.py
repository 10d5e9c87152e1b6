"""Files that are made without a name, and get one when they are whole. Each function is one step of the open transaction.

An unnamed file has no links, so a crash leaves nothing of it: it is purged at the next opening like any inode without a
name. The kernel has never heard of it. Publishing gives it its name, and takes the name from the file that had it before, in
one step: whoever looks sees the former file or the new one, whole. What a new file inherits from its directory it
inherits then, and what it replaces it may follow in its permissions.

The kernel does not check who publishes: the caller has. It does not know what was published either: what it has cached of
the name is to be forgotten before anybody is told, and inodes it does not know are to be purged by whoever published.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from ciaosfs.base import clock
from ciaosfs.base.errors import FsError
from ciaosfs.fs import acl, namespace, xattrs
from ciaosfs.fs.requester import Requester
from ciaosfs.meta.inodes import FLAG_ACL_ACCESS, FLAG_COMPRESS_NONE, FLAG_XATTRS, Inode
from ciaosfs.meta.metadata import Metadata

NO_PARENT = 0


@dataclass(frozen=True, slots=True)
class Naming:
    """How a file gets its name.

    `replaces` is the inode that has the name and is to lose it, None where nothing may have it. `permissions` are nine
    bits; None: those of the file that is replaced, with its ACL. `values` are its xattrs by name, not checked again.
    """

    replaces: int | None = None
    permissions: int | None = 0o644
    values: Mapping[bytes, bytes] = field(default_factory=dict)


def create(meta: Metadata, directory: int, who: Requester) -> Inode:
    """A file without a name that belongs to `who`; its bytes are compressed as those of files in `directory`."""
    policy = namespace.load_directory(meta, directory).flags & FLAG_COMPRESS_NONE
    now = clock.now_ns()
    inode = Inode(
        ino=meta.inodes.take_ino(),
        mode=stat.S_IFREG | 0o600,
        nlink=0,
        uid=who.uid,
        gid=who.gid,
        rdev=0,
        size=0,
        atime_ns=now,
        mtime_ns=now,
        ctime_ns=now,
        btime_ns=now,
        parent=NO_PARENT,
        flags=policy,
    )
    meta.inodes.insert(inode)
    return inode


def publish(meta: Metadata, ino: int, parent: int, name: bytes, naming: Naming) -> tuple[Inode, Inode | None]:
    """Let `name` stand for the file `ino`; returns it, and what it replaced as that is then.

    EEXIST: something has the name and nothing may. ENOENT: nothing has it any more, or the directory is gone. ESTALE:
    another file has it than the one to be replaced: look again. EISDIR, EINVAL: what has it is no regular file.
    """
    namespace.check_name(name)
    directory = namespace.load_directory(meta, parent)
    inode = meta.inodes.load(ino)
    assert inode is not None and inode.nlink == 0, f"inode {ino} has a name, or is gone"
    former = meta.dentries.lookup_inode(parent, name)
    _check_former(former, naming.replaces)
    # Not a tick: who reads an object in several requests knows by it when another took its place.
    now = clock.now_ns()
    mode, flags, values = _inherited(meta, directory, former, naming.permissions)
    values |= naming.values
    published = inode._replace(
        mode=mode,
        nlink=1,
        gid=directory.gid if directory.mode & stat.S_ISGID else inode.gid,
        mtime_ns=now,
        ctime_ns=now,
        parent=parent,
        flags=flags | (FLAG_XATTRS if values else 0),
    )
    replaced = None
    if former is None:
        meta.dentries.insert(parent, name, ino)
    else:
        meta.dentries.repoint(parent, name, ino)
        replaced = namespace.with_a_name_less(former, parent, now)
        meta.inodes.update(replaced)
    meta.inodes.update(published)
    for key, value in values.items():
        meta.xattrs.set(ino, key, value)
    meta.inodes.touch(parent, now, now)
    return published, replaced


def _check_former(former: Inode | None, replaces: int | None) -> None:
    if former is None:
        if replaces is not None:
            raise FsError(errno.ENOENT)
        return
    if replaces is None:
        raise FsError(errno.EEXIST)
    if former.ino != replaces:
        raise FsError(errno.ESTALE)
    if not stat.S_ISREG(former.mode):
        raise FsError(errno.EISDIR if stat.S_ISDIR(former.mode) else errno.EINVAL)


def _inherited(
    meta: Metadata, directory: Inode, former: Inode | None, permissions: int | None
) -> tuple[int, int, dict[bytes, bytes]]:
    """(mode, flags, xattrs) from the directory, or, but for compression, from the file that is replaced."""
    if former is None or permissions is not None:
        assert permissions is not None, "there is no file to follow"
        mode, flags, given = xattrs.inherit(meta, directory, stat.S_IFREG | permissions & 0o777)
        return mode, flags, dict(given)
    values = {}
    if former.flags & FLAG_ACL_ACCESS:
        access = meta.xattrs.get(former.ino, acl.ACCESS)
        assert access is not None
        values[acl.ACCESS] = access
    flags = former.flags & FLAG_ACL_ACCESS | directory.flags & FLAG_COMPRESS_NONE
    return stat.S_IFREG | former.mode & 0o777, flags, values
