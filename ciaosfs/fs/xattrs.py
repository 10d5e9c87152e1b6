"""Extended attributes: plain ones kept as they are, POSIX ACLs kept in step with the mode, our own ones checked.

The kernel has already applied the rules of xattr(7): who may touch which namespace, and the limits on size.
"""

from __future__ import annotations

import errno
import stat

from ciaosfs.base import clock, limits
from ciaosfs.base.errors import FsError, UsageError
from ciaosfs.codec.parts import decode_parts
from ciaosfs.fs import acl
from ciaosfs.fs.requester import Requester, may_keep_group_bit
from ciaosfs.meta.inodes import FLAG_ACL_ACCESS, FLAG_ACL_DEFAULT, FLAG_COMPRESS_NONE, FLAG_XATTRS, Inode
from ciaosfs.meta.metadata import Metadata

COMPRESSION = b"user.ciaos.compression"
PARTS = b"user.ciaos.parts"
_COMPRESSION_VALUES = (b"auto", b"zstd", b"none")
_OWN_PREFIX = b"user.ciaos."
_PREFIXES = (b"user.", b"trusted.", b"security.")


def check_namespace(name: bytes) -> None:
    """EOPNOTSUPP unless the name is in a namespace that is kept, as local file systems answer."""
    if not name.startswith(_PREFIXES) and name not in (acl.ACCESS, acl.DEFAULT):
        raise FsError(errno.EOPNOTSUPP)


def find(meta: Metadata, ino: int, name: bytes) -> bytes | None:
    """The value, or None when there is none. EOPNOTSUPP for names in no known namespace."""
    value = meta.xattrs.get(ino, name)
    if value is None:
        check_namespace(name)
    return value


def set_value(meta: Metadata, ino: int, name: bytes, value: bytes, who: Requester) -> None:
    """Create or replace. EOPNOTSUPP for names in no known namespace, EINVAL for a policy of no known value."""
    check_namespace(name)
    if len(name) > limits.XATTR_NAME_BYTES_MAX:
        raise FsError(errno.ERANGE)
    if len(value) > limits.XATTR_VALUE_BYTES_MAX:
        raise FsError(errno.E2BIG)
    inode = _load(meta, ino)
    flags, mode = inode.flags, inode.mode
    if name == acl.ACCESS:
        mode, value, flags = _access(inode, value, flags)
        if mode & stat.S_ISGID and not may_keep_group_bit(who, inode.gid):
            mode &= ~stat.S_ISGID
    elif name == acl.DEFAULT:
        if not stat.S_ISDIR(inode.mode):
            raise FsError(errno.EACCES)
        value, flags = _default(value, flags)
    elif name == COMPRESSION:
        if value not in _COMPRESSION_VALUES:
            raise FsError(errno.EINVAL, "user.ciaos.compression is auto, zstd or none.")
        flags = flags | FLAG_COMPRESS_NONE if value == b"none" else flags & ~FLAG_COMPRESS_NONE
    elif name == PARTS:
        _check_parts(inode, value)
    elif name.startswith(_OWN_PREFIX):
        raise FsError(errno.EINVAL, f"No policy is called {name.decode(errors='replace')}.")
    if value or name not in (acl.ACCESS, acl.DEFAULT):
        meta.xattrs.set(ino, name, value)
        flags |= FLAG_XATTRS
    else:
        meta.xattrs.remove(ino, name)
    meta.inodes.update(inode._replace(mode=mode, flags=flags, ctime_ns=clock.FILES.now_ns()))


def remove(meta: Metadata, ino: int, name: bytes) -> None:
    """ENODATA when it is not there; an ACL that is not there is gone already."""
    check_namespace(name)
    inode = _load(meta, ino)
    if not meta.xattrs.remove(ino, name):
        if name in (acl.ACCESS, acl.DEFAULT):
            return
        raise FsError(errno.ENODATA)
    flags = inode.flags
    if name == acl.ACCESS:
        flags &= ~FLAG_ACL_ACCESS
    elif name == acl.DEFAULT:
        flags &= ~FLAG_ACL_DEFAULT
    elif name == COMPRESSION:
        flags &= ~FLAG_COMPRESS_NONE
    meta.inodes.update(inode._replace(flags=flags, ctime_ns=clock.FILES.now_ns()))


def inherit(meta: Metadata, parent: Inode, mode: int) -> tuple[int, int, list[tuple[bytes, bytes]]]:
    """(mode, flags, xattrs) that a new child of `parent` starts with."""
    flags = parent.flags & FLAG_COMPRESS_NONE
    given: list[tuple[bytes, bytes]] = []
    if parent.flags & FLAG_ACL_DEFAULT and not stat.S_ISLNK(mode):
        value = meta.xattrs.get(parent.ino, acl.DEFAULT)
        if value is not None:
            mode, access = acl.inherit(acl.decode(value), mode)
            if not acl.is_minimal(access):
                given.append((acl.ACCESS, acl.encode(access)))
                flags |= FLAG_ACL_ACCESS | FLAG_XATTRS
            if stat.S_ISDIR(mode):
                given.append((acl.DEFAULT, value))
                flags |= FLAG_ACL_DEFAULT | FLAG_XATTRS
    if flags & FLAG_COMPRESS_NONE and stat.S_ISDIR(mode):
        given.append((COMPRESSION, b"none"))
        flags |= FLAG_XATTRS
    return mode, flags, given


def _load(meta: Metadata, ino: int) -> Inode:
    inode = meta.inodes.load(ino)
    if inode is None:
        raise FsError(errno.ENOENT)
    return inode


def _check_parts(inode: Inode, value: bytes) -> None:
    if not stat.S_ISREG(inode.mode):
        raise FsError(errno.EINVAL, "Only a regular file has parts.")
    try:
        decode_parts(value)
    except UsageError as error:
        raise FsError(errno.EINVAL, error.message) from None


def _access(inode: Inode, value: bytes, flags: int) -> tuple[int, bytes, int]:
    entries = acl.decode(value) if value else []
    if not entries:
        return inode.mode, b"", flags & ~FLAG_ACL_ACCESS
    mode = acl.mode_of(entries, inode.mode)
    if acl.is_minimal(entries):
        return mode, b"", flags & ~FLAG_ACL_ACCESS
    return mode, value, flags | FLAG_ACL_ACCESS


def _default(value: bytes, flags: int) -> tuple[bytes, int]:
    if not value or not acl.decode(value):
        return b"", flags & ~FLAG_ACL_DEFAULT
    return value, flags | FLAG_ACL_DEFAULT
