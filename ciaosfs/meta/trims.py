"""The files that were cut short and still have extents beyond their end: too many to delete in one step.

The row is made in the step that makes the file shorter and goes in the step that deletes the last of those extents, so
no crash can bring their bytes back. While it is there the file must not become longer than `size`: the caller waits.
"""

from __future__ import annotations

from typing import Final

from ciaosfs.meta.database import Database

_COUNT: Final = "SELECT count(*) FROM trims"
_SIZE: Final = "SELECT size FROM trims WHERE ino = ?"
_FIRST: Final = "SELECT min(ino) FROM trims"
_PUT: Final = "INSERT INTO trims (ino, size) VALUES (?1, ?2) ON CONFLICT (ino) DO UPDATE SET size = ?2"
_DELETE: Final = "DELETE FROM trims WHERE ino = ?"


class Trims:
    """The trims of one database. `count` says how many there are, nearly always 0, without asking SQLite."""

    def __init__(self, database: Database) -> None:
        self._execute = database.executor()
        self._changes = database.changes
        self.count = 0
        database.add_memory(self)

    def size(self, ino: int) -> int | None:
        """From which byte on the extents of the file wait to be deleted; None when none do."""
        if not self.count:
            return None
        size: int | None = self._execute(_SIZE, (ino,)).get
        return size

    def first(self) -> int | None:
        """Some file of which extents wait to be deleted."""
        ino: int | None = self._execute(_FIRST).get if self.count else None
        return ino

    def put(self, ino: int, size: int) -> None:
        """The extents of `ino` at and beyond `size` wait to be deleted; in the place of what was said before."""
        self.count += self.size(ino) is None
        self._execute(_PUT, (ino, size))

    def delete(self, ino: int) -> None:
        """They are gone. Unknown: nothing."""
        if self.count:
            before = self._changes()
            self._execute(_DELETE, (ino,))
            self.count -= self._changes() - before

    def flush(self) -> None:
        """Nothing waits in memory."""

    def reload(self) -> None:
        """Count the rows."""
        self.count = self._execute(_COUNT).get
