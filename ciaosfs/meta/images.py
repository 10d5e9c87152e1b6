"""Which images of the metadata are kept on the drives; see schema.py."""

from __future__ import annotations

from typing import Final, NamedTuple

from ciaosfs.meta.database import Database
from ciaosfs.meta.reader import Reader

_INSERT: Final = "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?)"
_ALL: Final = "SELECT * FROM images ORDER BY sequence DESC"
_DELETE: Final = "DELETE FROM images WHERE sequence = ?"
_NEWEST: Final = "SELECT max(sequence) FROM images"


class ImageRow(NamedTuple):
    """A row of `images`; see schema.py."""

    sequence: int
    log_volume_min: int
    first_stripe: int
    last_stripe: int
    stored_bytes: int
    created_ns: int


def newest_sequence(reader: Reader) -> int:
    """The commit that the newest kept image is of; 0 without any. Commits up to it are needed no more."""
    return next(reader.rows(_NEWEST))[0] or 0


class Images:
    """The kept images of one database."""

    def __init__(self, database: Database) -> None:
        self._execute = database.executor()

    def keep(self, image: ImageRow) -> None:
        """An image is whole and synced, root and stripes."""
        self._execute(_INSERT, image)

    def all(self) -> list[ImageRow]:
        """Every kept image, newest first."""
        return [ImageRow._make(row) for row in self._execute(_ALL).fetchall()]

    def delete(self, sequence: int) -> None:
        """Keep an image no longer; its stripes are to be let go, too."""
        self._execute(_DELETE, (sequence,))
