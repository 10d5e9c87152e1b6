"""Extended attributes as rows. Whoever sets one sets `inodes.FLAG_XATTRS`, so that most are never looked for."""

from __future__ import annotations

from typing import Final

from ciaosfs.meta.database import Database

_GET: Final = "SELECT value FROM xattrs WHERE ino = ? AND name = ?"
_PUT: Final = "INSERT OR REPLACE INTO xattrs (ino, name, value) VALUES (?, ?, ?)"
_REMOVE: Final = "DELETE FROM xattrs WHERE ino = ? AND name = ?"
_NAMES: Final = "SELECT name FROM xattrs WHERE ino = ? ORDER BY name"


class Xattrs:
    """The extended attributes of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._execute = database.executor()

    def get(self, ino: int, name: bytes) -> bytes | None:
        value: bytes | None = self._execute(_GET, (ino, name)).get
        return value

    def set(self, ino: int, name: bytes, value: bytes) -> None:
        """Create or replace. The caller sets FLAG_XATTRS of the inode."""
        self._execute(_PUT, (ino, name, value))

    def remove(self, ino: int, name: bytes) -> bool:
        """False when there was none."""
        before = self._database.changes()
        self._execute(_REMOVE, (ino, name))
        return self._database.changes() != before

    def names(self, ino: int) -> list[bytes]:
        """The names, in their order as bytes."""
        return [row[0] for row in self._execute(_NAMES, (ino,)).fetchall()]
