"""The database of an image as a file: made for an image to be written from, and written when one is read.

Making the copy is one statement in C, `VACUUM INTO`, at about half a second per million files: the only time for which
the image holds back checkpoints of the database. Sending the pieces away may then take as long as it likes. The copy
is checked before it is believed: the log that it makes unneeded would be the only way back from a damaged database.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import apsw

from ciaosfs.base import limits
from ciaosfs.base.errors import LogDamagedError, NoSpaceError
from ciaosfs.codec.checksum import hash64
from ciaosfs.codec.compression import compress_bytes
from ciaosfs.meta import schema
from ciaosfs.meta.connections import database_files, open_reader, translated
from ciaosfs.meta.counters import Counter
from ciaosfs.meta.imageformat import ImageRoot, ImageStripe, decode_payload, encode_payload, payload_bytes_for
from ciaosfs.meta.reader import Reader
from ciaosfs.meta.state import STATE_QUERY, State

_INODES: Final = "SELECT ifnull(sum(value), 0) FROM counters WHERE counter IN (?, ?, ?)"
_CHECK: Final = "PRAGMA integrity_check(1)"
_SPACE_FACTOR: Final = 2
"""A copy is made when so many times its size is free: filling the disk would stop the database itself."""


class Payload(NamedTuple):
    """What one stripe of an image is to hold: bytes `[offset, offset + length)` of the database."""

    data: bytes
    offset: int
    length: int
    checksum: int


class DatabaseCopy:
    """A compact copy of the database as of one commit. All methods block; `close` deletes the file."""

    def __init__(self, path: Path) -> None:
        """For `make`."""
        self._path = path
        self._file: BinaryIO = path.open("rb")
        self._frame: tuple[bytes, int] | None = None
        self._at = 0
        self.database_bytes = path.stat().st_size
        self.tables = schema.FORMAT
        self.state, self.inodes = _look_into(path, is_doubted=True)

    @classmethod
    def make(cls, database: Path, path: Path) -> DatabaseCopy:
        """Copy the last commit of the database to `path`, replacing what is there, and check the copy.

        LogDamagedError when the database is damaged, NoSpaceError, StoreError.
        """
        path.unlink(missing_ok=True)
        files = [file for file in database_files(database)[:2] if file.exists()]
        needed = _SPACE_FACTOR * sum(file.stat().st_size for file in files)
        room = os.statvfs(database.parent)
        if room.f_bavail * room.f_frsize < needed:
            raise NoSpaceError(
                f"An image of the metadata needs {needed} bytes free for a while at {database.parent}: make space."
            )
        try:
            with Reader(database) as reader:
                reader.copy_to(path)
            return cls(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def next_payload(self) -> Payload | None:
        """As many of the following pieces as fit into a stripe, compressed; None at the end. 10 ms or so."""
        pieces: list[tuple[bytes, int]] = []
        offset = self._at
        while True:
            frame = self._frame or self._next_frame()
            self._frame = frame
            stored = [len(frame) for frame, _ in pieces]
            if frame is None or payload_bytes_for([*stored, len(frame[0])]) > limits.STRIPE_PAYLOAD_BYTES_MAX:
                break
            pieces.append(frame)
            self._at += frame[1]
            self._frame = None
        if not pieces:
            return None
        data = encode_payload(pieces)
        return Payload(data, offset, self._at - offset, hash64(data))

    def _next_frame(self) -> tuple[bytes, int] | None:
        piece = self._file.read(limits.IMAGE_PIECE_BYTES)
        return (compress_bytes(piece), len(piece)) if piece else None

    def close(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


class RestoredDatabase:
    """A database that is written from an image, beside the one it will replace. All methods block."""

    def __init__(self, database: Path, root: ImageRoot) -> None:
        self._database = database
        self._root = root
        self._draft = database.with_name(database.name + "-restored")
        self._descriptor = os.open(self._draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def put(self, stripe: ImageStripe, payload: bytes | bytearray | memoryview) -> None:
        """Write what one stripe holds; in any order, from several threads. LogDamagedError, OSError."""
        at = stripe.offset
        for piece in decode_payload(payload, stripe):
            written = 0
            while written < len(piece):
                written += os.pwrite(self._descriptor, piece[written:], at + written)
            at += len(piece)

    def install(self) -> None:
        """Put it in the place of the database, durably. LogDamagedError when it is not what the root says.

        The old database goes before its write-ahead log: alone it could be taken for a whole one.
        """
        if self._root.tables < schema.FORMAT:
            _add_tables(self._draft, self._root.tables)
        os.fsync(self._descriptor)
        state, _ = _look_into(self._draft, is_doubted=False)
        if state != self._root.state:
            raise LogDamagedError(
                f"The image of commit {self._root.state.sequence} holds the metadata of commit {state.sequence}."
            )
        directory = os.open(self._database.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for file in database_files(self._database):
                file.unlink(missing_ok=True)
                os.fsync(directory)
            self._draft.rename(self._database)
            os.fsync(directory)
        finally:
            os.close(directory)

    def close(self) -> None:
        """Forget it, unless it was installed."""
        os.close(self._descriptor)
        self._draft.unlink(missing_ok=True)


def _add_tables(path: Path, version: int) -> None:
    """Give a copy that has the tables of an older format those that came after it. LogDamagedError, StoreError."""
    with translated(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.pragma("journal_mode", "delete")
            with connection:
                for added in range(version + 1, schema.FORMAT + 1):
                    for statement in schema.ADDED[added]:
                        connection.execute(statement)
                connection.pragma("user_version", schema.FORMAT)
        finally:
            connection.close()


def _look_into(path: Path, *, is_doubted: bool) -> tuple[State, int]:
    """The commit a copy is of, and how many inodes it has. LogDamagedError when it is damaged.

    `is_doubted`: check all of it, at about a second per million files.
    """
    with translated(path):
        connection = open_reader(path)
        try:
            found = connection.execute(_CHECK).get if is_doubted else "ok"
            if found != "ok":
                raise LogDamagedError(f"The metadata database is damaged: {found}.")
            row = connection.execute(STATE_QUERY).get
            if row is None:
                raise LogDamagedError("The metadata database does not say which commit it is at.")
            counted = (Counter.FILES, Counter.DIRECTORIES, Counter.OTHERS)
            return State._make(row), connection.execute(_INODES, counted).get
        except apsw.SQLError as error:
            raise LogDamagedError(f"The metadata database lacks tables: {error}.") from error
        finally:
            connection.close()
