"""How each kind of connection to the database file is opened and set up, and what is said when that fails.

One *writer* (`Database`), a *copier* and a *pin* for checkpoints, and any number of *readers*. None of them
makes a checkpoint on its own account: a checkpoint by SQLite's own choice would copy commits that are not
synced on the drives, and after a power cut the database would be ahead of the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from ciaosfs.base import limits
from ciaosfs.base.errors import LogDamagedError, NoSpaceError, StoreBusyError, StoreError
from ciaosfs.meta import schema

WAL_RESTART_BYTES: Final = 32 * limits.MIB
"""Above this the write-ahead log, once wholly copied, is emptied at once, whatever is pending."""
BUSY_TIMEOUT_MS: Final = 5000
"""Nobody else writes; a person with the sqlite3 shell may, and then a short wait beats an error."""
_READER_CACHE_KIB: Final = 8 * 1024
_COPIER_CACHE_KIB: Final = 256
"""Copying pages does not go through the page cache."""


class DatabaseFiles(NamedTuple):
    """The database, its write-ahead log, the log's index, and what `wal.note_copied` notes."""

    database: Path
    wal: Path
    shared_memory: Path
    copied: Path


def database_files(path: Path) -> DatabaseFiles:
    """The files of the database at `path`, whether they exist or not."""
    return DatabaseFiles(
        path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-copied"))
    )


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Say in our words what SQLite finds wrong with the file at `path`."""
    try:
        yield
    except apsw.BusyError as error:
        raise StoreBusyError(f"Another process writes to the metadata database {path}.") from error
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise LogDamagedError(f"The metadata database {path} is damaged: {error}.") from error
    except apsw.FullError as error:
        raise NoSpaceError(f"There is no space for the metadata database {path}.") from error
    except (apsw.CantOpenError, apsw.IOError, apsw.PermissionsError, apsw.ReadOnlyError) as error:
        raise StoreError(f"The metadata database {path} cannot be used: {error}.") from error


def open_writer(path: Path) -> apsw.Connection:
    """The writer of an existing database. LogDamagedError, StoreError, StoreBusyError."""
    if not path.exists():
        raise LogDamagedError(f"The metadata database {path} is missing.")
    with translated(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            _check_header(connection, path)
            _configure_writer(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def create_writer(path: Path) -> apsw.Connection:
    """Remove what is at `path`; the writer of a new database with all tables. StoreError, NoSpaceError."""
    for file in database_files(path):
        file.unlink(missing_ok=True)
    with translated(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
        try:
            _configure_writer(connection)
            with connection:
                for statement in (*schema.TABLES.values(), *schema.INDEXES):
                    connection.execute(statement)
                connection.pragma("application_id", schema.APPLICATION_ID)
                connection.pragma("user_version", schema.FORMAT)
        except BaseException:
            connection.close()
            raise
        return connection


def open_copier(path: Path) -> apsw.Connection:
    """A connection for checkpoints, which syncs (synchronous=FULL: log before copying, database after it)."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    _forbid_checkpoints(connection)
    connection.pragma("synchronous", "full")
    connection.pragma("cache_size", -_COPIER_CACHE_KIB)
    return connection


def open_reader(path: Path) -> apsw.Connection:
    """A connection that cannot write."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        _forbid_checkpoints(connection)
        _distrust(connection)
        connection.pragma("cache_size", -_READER_CACHE_KIB)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_header(connection: apsw.Connection, path: Path) -> None:
    application_id, version = connection.pragma("application_id"), connection.pragma("user_version")
    if application_id != schema.APPLICATION_ID:
        if connection.execute("SELECT count(*) FROM sqlite_schema").get == 0:
            raise LogDamagedError(f"The metadata database {path} is empty.")
        raise StoreError(f"{path} is a database, but not of a ciaosfs store.")
    if version > schema.FORMAT:
        raise StoreError(
            f"The metadata database {path} has format {version}, newer than {schema.FORMAT}: "
            "use a newer ciaosfs."
        )
    if version in schema.REBUILT_FORMATS:
        raise LogDamagedError(f"The metadata database {path} has the older format {version}.")
    if version < schema.FORMAT:
        raise StoreError(f"The metadata database {path} has the unknown format {version}.")


def _configure_writer(connection: apsw.Connection) -> None:
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.pragma("journal_mode", "wal")
    # The drives' log makes commits durable; the WAL is synced before a checkpoint copies from it. `Database`
    # sets it for each transaction.
    connection.pragma("synchronous", "off")
    _forbid_checkpoints(connection)
    # Plans must not depend on the values that are bound: else a SQLite built with STAT4 (apsw's is) compiles
    # every statement with a join or a subquery anew at each call, which made them ten times slower (25 us,
    # not 2.5).
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.pragma("cache_size", -(limits.SQLITE_CACHE_BYTES // limits.KIB))
    # Nothing is written before a commit: a full disk is met there and nowhere else (`Database`).
    connection.pragma("cache_spill", False)
    connection.pragma("foreign_keys", False)
    connection.pragma("temp_store", "memory")
    _distrust(connection)


def _forbid_checkpoints(connection: apsw.Connection) -> None:
    connection.wal_autocheckpoint(0)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def _distrust(connection: apsw.Connection) -> None:
    """Others may be able to write where the file lies: believe neither its schema nor its pages."""
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.pragma("trusted_schema", False)
    connection.pragma("cell_size_check", True)
