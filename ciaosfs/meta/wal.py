"""Cutting SQLite's write-ahead log back by whole commits, for a database that is ahead of the drives.

After a power cut the log may hold a commit that the drives lost. Removing the log would be wrong: a
checkpoint may have copied some pages of earlier commits and left out pages that later frames changed again,
so that the file alone is a mix. A log that ends with an earlier commit is always right, since checkpoints
copy only commits that are synced on the drives.

The file (https://www.sqlite.org/fileformat2.html#walformat): a header of 32 bytes with two salts, then frames
of 24 bytes and one page. A frame that ends a commit has the size of the database in its second word, others
have 0; frames of an earlier use of the file have other salts.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

from ciaosfs.meta.connections import database_files

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")


def drop_newest_commit(path: Path) -> bool:
    """Cut the newest commit off the write-ahead log of the database at `path`, which nobody has open.

    False when the log holds no commit, and then nothing is changed.
    """
    _, wal, index = database_files(path)
    if not wal.exists():
        return False
    with wal.open("r+b") as file:
        ends = _commit_ends(file.fileno())
        if not ends:
            return False
        file.truncate(ends[-2] if len(ends) > 1 else 0)
        os.fsync(file.fileno())
    index.unlink(missing_ok=True)  # it describes the log as it was; SQLite makes a new one
    return True


def _commit_ends(descriptor: int) -> list[int]:
    """Where each commit in the log ends, as file positions."""
    header = os.pread(descriptor, _HEADER.size, 0)
    if len(header) < _HEADER.size:
        return []
    _, _, page_bytes, _, salt_1, salt_2, _, _ = _HEADER.unpack(header)
    ends: list[int] = []
    at = _HEADER.size
    while True:
        frame = os.pread(descriptor, _FRAME.size, at)
        if len(frame) < _FRAME.size:
            return ends
        _, database_pages, frame_salt_1, frame_salt_2, _, _ = _FRAME.unpack(frame)
        if (frame_salt_1, frame_salt_2) != (salt_1, salt_2):
            return ends
        at += _FRAME.size + page_bytes
        if database_pages:
            ends.append(at)
