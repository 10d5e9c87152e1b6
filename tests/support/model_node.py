"""What the model of a POSIX tree is made of: its nodes, its refusals, and the names it shares with the file system."""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass, field

from ciaosfs.fs import acl

ROOT = 1
NOW = -1
NOREPLACE, EXCHANGE = 1, 2
COMPRESSION = b"user.ciaos.compression"
ACLS = (acl.ACCESS, acl.DEFAULT)


class ModelError(Exception):
    """The operation is refused with this errno."""

    def __init__(self, code: int) -> None:
        super().__init__(errno.errorcode[code])
        self.errno = code


@dataclass
class Node:
    mode: int
    uid: int
    gid: int
    nlink: int
    rdev: int = 0
    atime: int = NOW
    mtime: int = NOW
    ctime: int = NOW
    data: bytearray = field(default_factory=bytearray)
    target: bytes | None = None
    entries: dict[bytes, int] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    is_raw: bool = False
    """Compression is off for it, and for what is made in it."""
    frozen: bytes | None = None
    """`data` as bytes, if it was asked for since its last change."""

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def size(self) -> int:
        return len(self.target) if self.target is not None else len(self.data)

    @property
    def content(self) -> bytes:
        if self.frozen is None:
            self.frozen = bytes(self.data)
        return self.frozen
