"""Names in directories.

A name's *cookie* is its place in the directory's order: 58 bits of the hash of the name under a secret seed,
then a *slot* of 4 bits that tells names of one hash apart. Names of one hash take any free slot; which one
never changes while the name exists. The seed is secret so that nobody can make 17 names of one hash.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, TypeAlias

from ciaosfs.base.errors import FsError
from ciaosfs.codec.checksum import hash64
from ciaosfs.meta.database import Database
from ciaosfs.meta.inodes import ROOT_INO, Inode

SLOTS: Final = 16
_HASH_MASK: Final = ~(SLOTS - 1)

_INO: Final = "SELECT ino FROM dentries WHERE parent = ?1 AND cookie BETWEEN ?2 AND ?2 + 15 AND name = ?3"
_INODE: Final = (
    "SELECT inodes.* FROM dentries CROSS JOIN inodes ON inodes.ino = dentries.ino"
    " WHERE dentries.parent = ?1 AND dentries.cookie BETWEEN ?2 AND ?2 + 15 AND dentries.name = ?3"
)
# Nearly always nothing of this hash is there. Otherwise `_insert_beside` looks closer. Both in one statement, with
# NOT EXISTS, take half as long again.
_ANY_SLOT: Final = "SELECT 1 FROM dentries WHERE parent = ?1 AND cookie BETWEEN ?2 AND ?2 + 15"
_INSERT: Final = "INSERT INTO dentries VALUES (?, ?, ?, ?)"
_SLOTS: Final = "SELECT cookie, name FROM dentries WHERE parent = ?1 AND cookie BETWEEN ?2 AND ?2 + 15"
_REMOVE: Final = "DELETE FROM dentries WHERE parent = ?1 AND cookie BETWEEN ?2 AND ?2 + 15 AND name = ?3"
_REPOINT: Final = (
    "UPDATE dentries SET ino = ?4 WHERE parent = ?1 AND cookie BETWEEN ?2 AND ?2 + 15 AND name = ?3"
)
_LIST: Final = (
    "SELECT cookie, name, inodes.ino, mode, nlink, uid, gid, rdev, size, atime_ns, mtime_ns, ctime_ns, allocated"
    " FROM dentries CROSS JOIN inodes ON inodes.ino = dentries.ino"
    " WHERE dentries.parent = ?1 AND cookie > ?2 ORDER BY cookie LIMIT ?3"
)
_NAMES: Final = (
    "SELECT cookie, name, inodes.ino, mode FROM dentries CROSS JOIN inodes ON inodes.ino = dentries.ino"
    " WHERE dentries.parent = ?1 AND cookie > ?2 ORDER BY cookie LIMIT ?3"
)
_ANY: Final = "SELECT 1 FROM dentries WHERE parent = ? LIMIT 1"
_NAME: Final = "SELECT name FROM dentries WHERE parent = ? AND ino = ? LIMIT 1"
_PARENT: Final = "SELECT parent FROM inodes WHERE ino = ?"
_DEPTH_MAX: Final = 8192

_new = tuple.__new__

ListedRow: TypeAlias = tuple[int, bytes, int, int, int, int, int, int, int, int, int, int, int]
"""cookie, name, then of the inode: ino, mode, nlink, uid, gid, rdev, size, atime_ns, mtime_ns, ctime_ns, allocated.

A plain tuple as SQLite's adapter makes it, because a listing makes one for every name of a tree."""


class Dentries:
    """The directory entries of one database."""

    def __init__(self, database: Database, hash_name: Callable[[bytes, int], int] = hash64) -> None:
        """`hash_name(name, seed)` gives 64 bits; another one than xxh3 is for tests of collisions."""
        self._hash = hash_name
        self._changes = database.changes
        self._read = database.executor()
        self._write = database.tree_writer()
        self.seed = 0
        """`name_seed` of the state; `Metadata` sets it."""

    def _cookie(self, name: bytes) -> int:
        """The cookie of slot 0."""
        return self._hash(name, self.seed) >> 2 & _HASH_MASK or SLOTS

    def lookup(self, parent: int, name: bytes) -> int | None:
        """The inode number `name` stands for in `parent`."""
        ino: int | None = self._read(_INO, (parent, self._cookie(name), name)).get
        return ino

    def lookup_inode(self, parent: int, name: bytes) -> Inode | None:
        """The inode `name` stands for in `parent`."""
        row = self._read(_INODE, (parent, self._cookie(name), name)).get
        return None if row is None else _new(Inode, row)

    def insert(self, parent: int, name: bytes, ino: int) -> None:
        """Add a name. FsError EEXIST when it is there, ENOSPC when 16 others have its hash."""
        cookie = self._cookie(name)
        if self._read(_ANY_SLOT, (parent, cookie)).get is None:
            self._write(_INSERT, (parent, cookie, name, ino))
        else:
            self._insert_beside(parent, cookie, name, ino)

    def _insert_beside(self, parent: int, cookie: int, name: bytes, ino: int) -> None:
        taken = dict(self._read(_SLOTS, (parent, cookie)).fetchall())
        if name in taken.values():
            raise FsError(errno.EEXIST)
        for slot in range(cookie, cookie + SLOTS):
            if slot not in taken:
                self._write(_INSERT, (parent, slot, name, ino))
                return
        raise FsError(errno.ENOSPC, "Sixteen names in the directory have the same hash as this one.")

    def remove(self, parent: int, name: bytes) -> None:
        """Remove a name. FsError ENOENT when it is not there."""
        before = self._changes()
        self._write(_REMOVE, (parent, self._cookie(name), name))
        if self._changes() == before:
            raise FsError(errno.ENOENT)

    def repoint(self, parent: int, name: bytes, ino: int) -> None:
        """Let an existing name stand for another inode. FsError ENOENT when it is not there."""
        before = self._changes()
        self._write(_REPOINT, (parent, self._cookie(name), name, ino))
        if self._changes() == before:
            raise FsError(errno.ENOENT)

    def list_after(self, parent: int, cookie: int, limit: int) -> list[ListedRow]:
        """Up to `limit` entries after `cookie` (0 to start), in cookie order."""
        rows: list[ListedRow] = self._read(_LIST, (parent, cookie, limit)).fetchall()
        return rows

    def names_after(self, parent: int, cookie: int, limit: int) -> list[tuple[int, bytes, int, int]]:
        """Up to `limit` of (cookie, name, ino, mode) after `cookie` (0 to start), in cookie order."""
        rows: list[tuple[int, bytes, int, int]] = self._read(_NAMES, (parent, cookie, limit)).fetchall()
        return rows

    def is_empty(self, parent: int) -> bool:
        return self._read(_ANY, (parent,)).get is None

    def name_in(self, parent: int, ino: int) -> bytes | None:
        """A name of the inode in this directory, if it has one. Scans the directory."""
        name: bytes | None = self._read(_NAME, (parent, ino)).get
        return name

    def path_of(self, ino: int) -> bytes | None:
        """A path to the inode, beginning with "/"; None when it has none or only through directories not
        hinted at.

        Walks up by `inodes.parent` and scans each directory on the way: for messages, not for requests.
        """
        names: list[bytes] = []
        for _ in range(_DEPTH_MAX):
            if ino == ROOT_INO:
                return b"/" + b"/".join(reversed(names))
            parent: int | None = self._read(_PARENT, (ino,)).get
            name: bytes | None = None if parent is None else self._read(_NAME, (parent, ino)).get
            if parent is None or name is None:
                return None
            names.append(name)
            ino = parent
        return None


def cookie_of(name: bytes, seed: int) -> int:
    """The cookie of slot 0 of a name, as `Dentries` gives it."""
    return hash64(name, seed) >> 2 & _HASH_MASK or SLOTS
