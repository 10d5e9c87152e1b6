"""Which images of the metadata are kept on the drives; see schema.py."""

from __future__ import annotations

from typing import Final, NamedTuple

from ciaosfs.meta.database import Database
from ciaosfs.meta.reader import Reader

_INSERT: Final = "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?)"
_ALL: Final = "SELECT * FROM images ORDER BY sequence DESC"
_DELETE: Final = "DELETE FROM images WHERE sequence = ?"


class ImageRow(NamedTuple):
    """A row of `images`; see schema.py."""

    sequence: int
    log_volume_min: int
    first_stripe: int
    last_stripe: int
    stored_bytes: int
    created_ns: int


def kept_images(reader: Reader) -> list[ImageRow]:
    """Every kept image at the reader's moment, newest first."""
    return [ImageRow._make(row) for row in reader.rows(_ALL)]


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
