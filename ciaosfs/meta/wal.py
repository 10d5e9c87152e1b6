"""Cutting SQLite's write-ahead log back by whole commits, for a database that is ahead of the drives.

After a power cut the log may hold a commit that the drives lost. Removing the log would be wrong: a
checkpoint may have copied some pages of earlier commits and left out pages that later frames changed again,
so that the file alone is a mix. A log that ends with an earlier commit is right as long as no checkpoint has
copied anything later. None should have, since checkpoints copy only commits that are synced on the drives;
but drives have been seen to lie about that. So every checkpoint first notes how far it may copy, and the log
is never cut back below.

The log (https://www.sqlite.org/fileformat2.html#walformat): a header of 32 bytes with two salts, then frames
of 24 bytes and one page. A frame that ends a commit has the size of the database in its second word, others
have 0; frames of an earlier use of the file have other salts. The note, little-endian: the salts as they are
in the log, the number of frames (u64), xxh3 of both.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

from ciaosfs.base.errors import LogDamagedError
from ciaosfs.codec.checksum import hash64
from ciaosfs.meta.connections import database_files

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_SALTS: Final = slice(16, 24)
_CHECKSUM: Final = slice(16, 24)
"""Of a frame: over the header of the log, and over this and all frames before, without these bytes and the salts."""
_BIG_ENDIAN_MAGIC: Final = 0x377F0683
_NOTE: Final = struct.Struct("<8sQQ")


class _Log(NamedTuple):
    """What a write-ahead log holds: its salts, and for each commit the number of frames up to its end."""

    salts: bytes
    frame_bytes: int
    ends: list[int]


def committed_pages(path: Path) -> int:
    """Frames up to the last commit in the log of the database at `path`; a torn end may be among them."""
    log = _read(path)
    return log.ends[-1] if log is not None and log.ends else 0


def note_copied(path: Path, frames: int) -> None:
    """Note, durably, that a checkpoint may copy this many frames from here on. OSError when that fails."""
    files = database_files(path)
    with files.wal.open("rb") as file:
        salts = file.read(_HEADER.size)[_SALTS]
    body = struct.pack("<8sQ", salts, frames)
    is_new = not files.copied.exists()
    descriptor = os.open(files.copied, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, body + struct.pack("<Q", hash64(body)), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def drop_newest_commit(path: Path) -> bool:
    """Cut the newest commit off the write-ahead log of the database at `path`, which nobody has open.

    False, and nothing is changed, when the log holds none or a checkpoint may have copied it.
    """
    log = _read(path)
    if log is None or not log.ends:
        return False
    left = log.ends[-2] if len(log.ends) > 1 else 0
    files = database_files(path)
    if left < _copied(files.copied, log.salts):
        return False
    with files.wal.open("r+b") as file:
        file.truncate(_HEADER.size + left * log.frame_bytes if left else 0)
        os.fsync(file.fileno())
    files.shared_memory.unlink(missing_ok=True)  # it describes the log as it was; SQLite makes a new one
    return True


def write_again(path: Path, frames: int) -> None:
    """Write the first `frames` frames of the log over themselves, and sync them.

    After a sync that failed the kernel keeps what it could not write as if it were clean: it can be read until it
    leaves memory, no later sync says that it is not on the disk, and a power cut takes it. Written again it is
    dirty again. In a worker thread, at about a second for 16 MiB. LogDamagedError when the frames are not what was
    written any more; OSError.
    """
    with database_files(path).wal.open("r+b") as file:
        header = file.read(_HEADER.size)
        fields = _HEADER.unpack(header)
        order = ">" if fields[0] == _BIG_ENDIAN_MAGIC else "<"
        sums = _summed(header[:24], order, (0, 0))
        is_right = sums == fields[6:]
        file.seek(0)
        file.write(header)
        for _ in range(frames):
            at = file.tell()
            frame = file.read(_FRAME.size + fields[2])
            sums = _summed(frame[:8] + frame[_FRAME.size :], order, sums)
            if not is_right or sums != struct.unpack(">2I", frame[_CHECKSUM]):
                raise LogDamagedError(f"SQLite's log of {path} is damaged: it cannot be written to the disk.")
            file.seek(at)
            file.write(frame)
        file.flush()
        os.fsync(file.fileno())


def _summed(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    """SQLite's checksum of `data`, going on from the one of what comes before."""
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def _copied(path: Path, salts: bytes) -> int:
    """Frames of the log with these salts that may be in the database file."""
    try:
        note = path.read_bytes()
    except FileNotFoundError:
        return 0  # there was no checkpoint yet
    if len(note) != _NOTE.size:
        return 1 << 63
    noted_salts, frames, checksum = _NOTE.unpack(note)
    if checksum != hash64(note[:16]):
        return 1 << 63
    return int(frames) if noted_salts == salts else 0


def _read(path: Path) -> _Log | None:
    try:
        descriptor = os.open(database_files(path).wal, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        header = os.pread(descriptor, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            return None
        frame_bytes = _FRAME.size + _HEADER.unpack(header)[2]
        salts = header[_SALTS]
        ends: list[int] = []
        frames = 0
        while True:
            frame = os.pread(descriptor, _FRAME.size, _HEADER.size + frames * frame_bytes)
            if len(frame) < _FRAME.size or frame[8:16] != salts:
                return _Log(salts, frame_bytes, ends)
            frames += 1
            if _FRAME.unpack(frame)[1]:
                ends.append(frames)
    finally:
        os.close(descriptor)
