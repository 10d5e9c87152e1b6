"""Inodes: one row each, loaded and changed by single statements; SQLite's pages are their only cache."""

from __future__ import annotations

import stat
from typing import Final, NamedTuple, TypeAlias

from ciaosfs.meta.counters import Counter, Counters
from ciaosfs.meta.database import Database

ROOT_INO: Final = 1

FLAG_XATTRS: Final = 1
"""May have rows in xattrs."""
FLAG_ACL_ACCESS: Final = 2
"""Has an access ACL that says more than its mode."""
FLAG_ACL_DEFAULT: Final = 4
"""A directory whose children inherit an ACL."""
FLAG_COMPRESS_NONE: Final = 8
"""Policy: file data is stored as it is; children inherit it."""


class Inode(NamedTuple):
    """A row of `inodes`; see schema.py for units and invariants. Fields are in the order of the columns."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    parent: int
    flags: int
    allocated: int = 0
    target: bytes | None = None


InodeRow: TypeAlias = tuple[
    int, int, int, int, int, int, int, int, int, int, int, int, int, int, bytes | None
]

_UPDATED: Final = Inode._fields.index("allocated")
"""`update` writes the columns before this one; `allocated` belongs to extents.py and `target` never changes.
"""

_LOAD: Final = "SELECT * FROM inodes WHERE ino = ?"
_SIZE: Final = "SELECT size FROM inodes WHERE ino = ?"
_INSERT: Final = "INSERT INTO inodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE: Final = (
    "UPDATE inodes SET mode = ?2, nlink = ?3, uid = ?4, gid = ?5, rdev = ?6, size = ?7, atime_ns = ?8,"
    " mtime_ns = ?9, ctime_ns = ?10, btime_ns = ?11, parent = ?12, flags = ?13 WHERE ino = ?1"
)
_GROW: Final = "UPDATE inodes SET size = ?2 WHERE ino = ?1 AND size < ?2"
_SET_TIMES: Final = (
    "UPDATE inodes SET atime_ns = coalesce(?2, atime_ns), mtime_ns = coalesce(?3, mtime_ns), ctime_ns = ?4"
    " WHERE ino = ?1 RETURNING *"
)
_TOUCH: Final = "UPDATE inodes SET mtime_ns = ?2, ctime_ns = ?3 WHERE ino = ?1"
_TOUCH_LINKS: Final = "UPDATE inodes SET mtime_ns = ?2, ctime_ns = ?3, nlink = nlink + ?4 WHERE ino = ?1"
_DELETE: Final = "DELETE FROM inodes WHERE ino = ? RETURNING mode, flags, allocated"
_DELETE_XATTRS: Final = "DELETE FROM xattrs WHERE ino = ?"
_ORPHANS: Final = "SELECT ino FROM inodes WHERE nlink = 0 ORDER BY ino LIMIT ?"
_ANCESTORS: Final = (
    "WITH RECURSIVE up(ino, depth) AS (SELECT parent, 1 FROM inodes WHERE ino = ?1 AND parent <> ino"
    " UNION ALL SELECT inodes.parent, depth + 1 FROM up JOIN inodes ON inodes.ino = up.ino"
    " WHERE inodes.parent <> inodes.ino AND depth < ?2) SELECT ino FROM up"
)
_DEPTH_MAX: Final = 8192
"""A bound for walking up, in case of a damaged tree; a path of 4096 bytes has at most 2048 names."""

_new = tuple.__new__


def kind_counter(mode: int) -> Counter:
    """Which counter an inode of this mode is counted by."""
    if stat.S_ISREG(mode):
        return Counter.FILES
    return Counter.DIRECTORIES if stat.S_ISDIR(mode) else Counter.OTHERS


class Inodes:
    """The inodes of one database."""

    def __init__(self, database: Database, counters: Counters) -> None:
        self._counters = counters
        self._database = database
        self._read = database.executor()
        self._write = database.tree_writer()
        self._changes = database.changes
        self.directory_changes = 0
        """How often a directory was made or changed other than by its entries and in its times: moves are among it. What
        was found by walking up holds while this stays."""

    def take_ino(self) -> int:
        """A number for a new inode, never given before."""
        values = self._counters.values
        ino = max(values[Counter.NEXT_INO], ROOT_INO + 1)
        values[Counter.NEXT_INO] = ino + 1
        return ino

    def load(self, ino: int) -> Inode | None:
        row = self._read(_LOAD, (ino,)).get
        return None if row is None else _new(Inode, row)

    def size(self, ino: int) -> int | None:
        """The size in bytes; None when there is no such inode."""
        size: int | None = self._read(_SIZE, (ino,)).get
        return size

    def insert(self, inode: Inode) -> None:
        """Add a new inode. `allocated` is to be 0: extents come after their inode."""
        assert inode.allocated == 0
        self._write(_INSERT, inode)
        if stat.S_ISDIR(inode.mode):
            self.directory_changes += 1
        self._counters.add(kind_counter(inode.mode), 1)

    def update(self, inode: Inode) -> None:
        """Write every field but `allocated` and `target`. The kind in the mode must be what it was."""
        self._write(_UPDATE, inode[:_UPDATED])
        if stat.S_ISDIR(inode.mode):
            self.directory_changes += 1

    def grow(self, ino: int, size: int) -> bool:
        """Make it at least so long; False when there is no such inode."""
        before = self._changes()
        self._read(_GROW, (ino, size))
        if self._changes() == before:
            return self.size(ino) is not None
        self._database.tree_changes += 1
        return True

    def set_times(self, ino: int, atime_ns: int | None, mtime_ns: int | None, ctime_ns: int) -> Inode | None:
        """Set times, None leaves one as it is; returns the inode as it is then, None when there is no such inode."""
        row = self._write(_SET_TIMES, (ino, atime_ns, mtime_ns, ctime_ns)).get
        return None if row is None else _new(Inode, row)

    def touch(self, ino: int, mtime_ns: int, ctime_ns: int, links: int = 0) -> None:
        """Set the times and add `links` to nlink: what a change among its entries does to a directory."""
        if links:
            self._write(_TOUCH_LINKS, (ino, mtime_ns, ctime_ns, links))
        else:  # nlink is left alone: naming it would cost the look at the index of orphans
            self._write(_TOUCH, (ino, mtime_ns, ctime_ns))

    def delete(self, ino: int) -> None:
        """Remove the inode and its xattrs. Its extents must be gone (`purge_step`); unknown: nothing."""
        row = self._write(_DELETE, (ino,)).get
        if row is None:
            return
        mode, flags, allocated = row
        assert allocated == 0, f"inode {ino} still has extents"
        self._counters.add(kind_counter(mode), -1)
        if flags & FLAG_XATTRS:
            self._write(_DELETE_XATTRS, (ino,))

    def orphans(self, limit: int = -1) -> list[int]:
        """Inodes with nlink 0, at most `limit` of them (-1: all)."""
        return [row[0] for row in self._read(_ORPHANS, (limit,)).fetchall()]

    def ancestors(self, ino: int) -> list[int]:
        """The directories above `ino`, nearest first, by the `parent` column; none above the root."""
        return [row[0] for row in self._read(_ANCESTORS, (ino, _DEPTH_MAX)).fetchall()]

    def count(self) -> int:
        """How many inodes there are, orphans included."""
        values = self._counters.values
        return values[Counter.FILES] + values[Counter.DIRECTORIES] + values[Counter.OTHERS]
