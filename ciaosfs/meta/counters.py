"""Sums over whole tables, kept in memory and written with each changeset, so that statfs costs no query."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from ciaosfs.meta.database import Database


class Counter(IntEnum):
    """What is counted. The numbers are stored."""

    NEXT_INO = 1
    """The next inode number to give; 0 stands for 2 (1 is the root)."""
    FILES = 2
    """Inodes of regular files, orphans included."""
    DIRECTORIES = 3
    """Inodes of directories, the root included."""
    OTHERS = 4
    """Symbolic links, devices, sockets and pipes."""
    ALLOCATED_BYTES = 5
    """Sum of inodes.allocated."""
    STRIPES = 6
    """Rows of stripes."""
    PAYLOAD_BYTES = 7
    """Sum of stripes.payload_bytes."""
    IMAGE_BYTES = 8
    """The part of PAYLOAD_BYTES that images of the metadata have."""
    LOG_BYTES = 9
    """Bytes of commit needles since the last image, as of the commit before."""
    FILE_BYTES = 10
    """Sum of stripes.file_bytes. What it exceeds ALLOCATED_BYTES by is dead."""
    NEXT_TOKEN = 11
    """The next number of a token to give; 0 stands for 1."""


_SELECT: Final = "SELECT counter, value FROM counters"
_SAVE: Final = (
    "INSERT INTO counters (counter, value) VALUES (?1, ?2) ON CONFLICT (counter) DO UPDATE SET value = ?2"
)


class Counters:
    """The counters of one database; `values[Counter.X]` is the current value, pending changes included."""

    def __init__(self, database: Database) -> None:
        self._execute = database.executor()
        self.values: list[int] = []
        self._saved: list[int] = []
        database.add_memory(self)

    def add(self, counter: Counter, delta: int) -> None:
        self.values[counter] += delta

    def flush(self) -> None:
        """Write what changed into the open transaction."""
        if self.values == self._saved:
            return
        for counter, (value, saved) in enumerate(zip(self.values, self._saved, strict=True)):
            if value != saved:
                self._execute(_SAVE, (counter, value))
        self._saved = list(self.values)

    def reload(self) -> None:
        """Forget what is in memory and read the rows."""
        self.values = [0] * (max(Counter) + 1)
        for counter, value in self._execute(_SELECT).fetchall():
            if counter < len(self.values):
                self.values[counter] = value
        self._saved = list(self.values)
