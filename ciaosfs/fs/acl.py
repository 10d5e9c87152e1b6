"""POSIX ACLs as the kernel hands them over in `system.posix_acl_access` and `system.posix_acl_default`.

Pure functions on the xattr's bytes. With FUSE_POSIX_ACL the kernel checks permissions with them and the file system
keeps mode and ACL in step: setting an access ACL sets the mode, chmod changes the ACL, and a new child gets its ACLs
from the default ACL of its directory. Format: acl(5) and linux/posix_acl_xattr.h, version 2, little-endian:
u32 version, then per entry u16 tag, u16 permissions, u32 id. The algorithms are those of POSIX.1e draft 17, section 23.1.
"""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

from ciaosfs.base.errors import FsError

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"

_VERSION = 2
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_TAGS = (_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER)
_NO_ID = 0xFFFFFFFF
_HEAD = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")


class Entry(NamedTuple):
    tag: int
    perm: int
    id: int


def decode(value: bytes) -> list[Entry]:
    """Parse and validate as the kernel does: EINVAL for anything malformed, EOPNOTSUPP for another version.

    Entries come in the order of their tags, each kind without a name once. An ACL without entries is an empty list.
    """
    if len(value) < _HEAD.size:
        raise FsError(errno.EINVAL)
    if _HEAD.unpack_from(value)[0] != _VERSION:
        raise FsError(errno.EOPNOTSUPP)
    if (len(value) - _HEAD.size) % _ENTRY.size:
        raise FsError(errno.EINVAL)
    entries = [Entry(*fields) for fields in _ENTRY.iter_unpack(value[_HEAD.size :])]
    tags = [entry.tag for entry in entries]
    if not entries:
        return entries
    named = [entry for entry in entries if entry.tag in (_USER, _GROUP)]
    single = all(tags.count(tag) == 1 for tag in (_USER_OBJ, _GROUP_OBJ, _OTHER)) and tags.count(_MASK) <= 1
    if any(tag not in _TAGS for tag in tags) or any(entry.perm & ~7 for entry in entries) or not single:
        raise FsError(errno.EINVAL)
    if tags != sorted(tags) or any(entry.id == _NO_ID for entry in named) or (named and _MASK not in tags):
        raise FsError(errno.EINVAL)
    return entries


def encode(entries: list[Entry]) -> bytes:
    return _HEAD.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)


def is_minimal(entries: list[Entry]) -> bool:
    """Whether the ACL says no more than the nine permission bits do."""
    return all(entry.tag in (_USER_OBJ, _GROUP_OBJ, _OTHER) for entry in entries)


def mode_of(entries: list[Entry], mode: int) -> int:
    """`mode` with the permission bits the access ACL stands for: its mask, when there is one, is the group class."""
    bits = {entry.tag: entry.perm for entry in entries if entry.tag not in (_USER, _GROUP)}
    group = bits.get(_MASK, bits[_GROUP_OBJ])
    return (mode & ~0o777) | bits[_USER_OBJ] << 6 | group << 3 | bits[_OTHER]


def with_mode(entries: list[Entry], mode: int) -> list[Entry]:
    """The access ACL after chmod: owner, mask (or group, without a mask) and other follow the mode."""
    has_mask = any(entry.tag == _MASK for entry in entries)
    changed = {_USER_OBJ: mode >> 6 & 7, _OTHER: mode & 7, (_MASK if has_mask else _GROUP_OBJ): mode >> 3 & 7}
    return [entry._replace(perm=changed.get(entry.tag, entry.perm)) for entry in entries]


def inherit(default: list[Entry], mode: int) -> tuple[int, list[Entry]]:
    """(mode, access ACL) of a new child: the default ACL limited by the mode the caller asked for."""
    has_mask = any(entry.tag == _MASK for entry in default)
    limits = {_USER_OBJ: mode >> 6 & 7, _OTHER: mode & 7, (_MASK if has_mask else _GROUP_OBJ): mode >> 3 & 7}
    access = [entry._replace(perm=entry.perm & limits.get(entry.tag, 7)) for entry in default]
    return mode_of(access, mode), access
