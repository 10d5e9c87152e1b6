"""The writer's connection: one open transaction at all times, recorded by a session, ended by commits.

A commit has two steps, so that the log comes first: `take_changeset` says what the transaction changed, the
caller puts that on the drives, then `commit` ends the transaction and begins the next. SQLite never syncs
here: its files are an index that the drives' log can bring up to date. They are synced by checkpoints
(`checkpoint`), which only ever copy commits that are synced on the drives.

What memory holds for the rows (counters, sums) takes part as a `Memory`: it is flushed before a changeset is
taken and reloaded when rows change under it.

Everything here runs in the loop; nothing waits for a disk except the reads of pages that are not cached.
Nothing is written before a commit (`cache_spill=OFF`): a transaction is bounded by limits.COMMIT_CHANGESET_BYTES,
and so a full or failing disk is met in one place, `_commit_failed`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import apsw

from ciaosfs.base import limits
from ciaosfs.base.errors import LogDamagedError, NoSpaceError, StoreError
from ciaosfs.meta import connections
from ciaosfs.meta.changesets import apply_changeset
from ciaosfs.meta.checkpoint import Checkpoint, Checkpointer
from ciaosfs.meta.reader import Reader

log = logging.getLogger(__name__)

UNSAVED_BYTES_MAX: Final = 64 * limits.MIB
"""So much of the changesets of commits that SQLite could not write is kept; then commits are refused."""


class Memory(Protocol):
    """State in memory that belongs to rows."""

    def flush(self) -> None:
        """Write what is pending into the open transaction."""

    def reload(self) -> None:
        """Forget everything and read the rows again."""


class Rows(Protocol):
    """The part of an apsw cursor that the tables use."""

    @property
    def get(self) -> Any:
        """The only value of the only row, or the row of several values; None without rows."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows."""


Execute: TypeAlias = Callable[..., Rows]


class Database:
    """Owns the connection that writes. Made by `open` or `create_fresh`; `close` ends it, uncommitted."""

    def __init__(self, connection: apsw.Connection, path: Path) -> None:
        self._connection = connection
        self._session: apsw.Session
        self.path = path
        self._control = connection.cursor()
        self._memories: list[Memory] = []
        self._on_commit: list[Callable[[], None]] = []
        self._checkpointer = Checkpointer(path)
        self._page_bytes: int = connection.pragma("page_size")
        self.tree_changes = 0
        """How often rows of `inodes` or `dentries` were written: what was read of these two holds while it stays."""
        self._weight = 0
        self._taken: bytes | None = None
        self._unsaved: list[bytes] = []
        self._stopped: str | None = None
        connection.set_wal_hook(self._checkpointer.committed)
        self._begin(is_safe=False)  # who knows how the log was left

    # Opening

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open an existing database at its last commit.

        LogDamagedError when it is missing or damaged: the caller rebuilds it from the drives. StoreError when
        the file belongs to something else or to a newer version, or cannot be opened.
        """
        return cls._over(connections.open_writer(path), path)

    @classmethod
    def create_fresh(cls, path: Path) -> Database:
        """Remove what is at `path` and make an empty database with all tables. StoreError, NoSpaceError."""
        return cls._over(connections.create_writer(path), path)

    @classmethod
    def _over(cls, connection: apsw.Connection, path: Path) -> Database:
        try:
            with connections.translated(path):
                return cls(connection, path)
        except BaseException:
            connection.close(True)
            raise

    def close(self) -> None:
        """End without a commit; what is in the open transaction is forgotten."""
        self._session.close()
        self._checkpointer.close()
        self._connection.close(True)

    # What the tables build on

    def executor(self) -> Execute:
        """`execute(statement, bindings)` of a new cursor, for one family of statements; its owner keeps it.

        A statement is to be read to its end at once (`get`, `fetchall`): one that is left standing holds back
        commits and checkpoints. Its text is constant: it is parsed once.
        """
        return self._connection.cursor().execute

    def batch_executor(self) -> Callable[[str, Iterable[tuple[Any, ...]]], object]:
        """As `executor`, for one statement that is done with many bindings, one after the other: half the cost of each.
        Who changes rows of `inodes` or `dentries` with it counts that in `tree_changes`."""
        return self._connection.cursor().executemany

    def tree_writer(self) -> Execute:
        """As `executor`, for whatever changes rows of `inodes` or `dentries`: it is counted in `tree_changes`."""
        execute = self.executor()

        def write(statement: str, bindings: object = None) -> Rows:
            self.tree_changes += 1
            return execute(statement, bindings)

        return write

    def changes(self) -> int:
        """Rows changed since the connection was opened: the difference tells what a statement did."""
        return self._connection.total_changes()

    def weigh(self, changes: int) -> None:
        """Count `changes` that memory holds as pending."""
        self._weight += changes

    def add_memory(self, memory: Memory) -> None:
        """`memory` takes part in commits from now on; it is loaded at once."""
        self._memories.append(memory)
        memory.reload()

    def on_commit(self, callback: Callable[[], None]) -> None:
        """`callback` is called when a transaction with a taken changeset ends."""
        self._on_commit.append(callback)

    # Transactions

    def changes_pending(self) -> int:
        """How often the open transaction has changed a row; 0 when it has changed nothing."""
        return self._connection.total_changes() - self._base + self._weight

    @property
    def changeset_bytes(self) -> int:
        """How long the changeset would be now; a row counts once, however often it changed. In 0.1 us."""
        return self._session.changeset_size

    def take_changeset(self) -> bytes:
        """What the open transaction changes, b"" for nothing. It may go on, and then is taken again as a whole.

        NoSpaceError when SQLite has been unable to write for so long that no more can be kept in memory;
        StoreError when it could not even put back what it had: then only the log is right, and mounting again
        reads it.
        """
        if self._stopped is not None:
            raise StoreError(f"The metadata database {self.path} failed ({self._stopped}): mount again.")
        if sum(map(len, self._unsaved)) > UNSAVED_BYTES_MAX:
            raise NoSpaceError(
                f"The metadata database {self.path} cannot be written: make space on its file system."
            )
        for memory in self._memories:
            memory.flush()
        self._taken = self._session.changeset()
        self._accounted = self._connection.total_changes()
        return self._taken

    def commit(self) -> None:
        """End the transaction, whose changeset the log has, and begin the next. Nothing is synced.

        A disk that cannot be written does not make this fail: the log has the changes, memory keeps them for
        the database, and the next commit tries again. NoSpaceError only for what `apply` did.
        """
        assert self._connection.total_changes() == self._accounted, "changes after the changeset was taken"
        taken = self._taken
        if taken is not None:
            for callback in self._on_commit:
                callback()
        try:
            self._control.execute("COMMIT")
        except apsw.Error as error:
            if taken is None:
                self._stop(str(error))
                raise NoSpaceError(
                    f"The metadata database {self.path} cannot be written: {error}."
                ) from error
            self._commit_failed(taken, error)
            return
        if self._unsaved:
            log.warning("the metadata database is written again, %d commits late", len(self._unsaved))
            self._unsaved.clear()
        self._begin_next()

    def rollback(self) -> None:
        """Forget what the open transaction did, applied changesets included, and begin the next."""
        self._session.close()
        self._control.execute("ROLLBACK")
        self._begin_next()
        for memory in self._memories:
            memory.reload()

    def apply(self, changeset: bytes) -> None:
        """Do in the open transaction what `changeset` says, unrecorded: no later changeset contains it.

        Nothing of the caller's own may be pending. LogDamagedError when it does not fit what is there.
        """
        assert self.changes_pending() == 0, "changes would be lost from the log"
        self._session.close()
        try:
            apply_changeset(self._connection, changeset)
        finally:
            self._record()
        for memory in self._memories:
            memory.reload()

    def _begin(self, *, is_safe: bool = True) -> None:
        """Open a transaction and record it.

        When the write-ahead log is wholly copied, SQLite begins it anew in the next commit. Unsynced, that
        could leave, after a power cut, frames of before and after mixed up behind a header of before. So the
        log is emptied first. Where that cannot be (a reader uses it), SQLite is told to sync the new header:
        `normal` does that and nothing else in a commit.
        """
        is_safe = is_safe and (not self._checkpointer.is_complete or self._empty_wal())
        if not is_safe:
            self._checkpointer.doubt()
        self._connection.pragma("synchronous", "off" if is_safe else "normal")
        self._control.execute("BEGIN IMMEDIATE")
        self._record()

    def _empty_wal(self) -> bool:
        """Cut the write-ahead log, all of which is copied, to nothing; False when a reader uses it."""
        self._connection.set_busy_timeout(0)
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            return False
        finally:
            self._connection.set_busy_timeout(connections.BUSY_TIMEOUT_MS)
        self._checkpointer.emptied()
        return True

    def _begin_next(self) -> None:
        """As `_begin`, with what could not be saved put back; a failure stops all that would build on it."""
        try:
            self._begin()
            if self._unsaved:
                self._session.close()
                for changeset in self._unsaved:
                    apply_changeset(self._connection, changeset)
                self._record()
        except (apsw.Error, LogDamagedError) as error:
            self._stop(str(error))

    def _record(self) -> None:
        """A new session: what happens from here on is the next changeset."""
        self._session = apsw.Session(self._connection, "main")
        self._session.config(apsw.SQLITE_SESSION_OBJCONFIG_SIZE, 1)
        self._session.attach()
        self._base = self._accounted = self._connection.total_changes()
        self._weight = 0
        self._taken = None

    def _commit_failed(self, taken: bytes, error: apsw.Error) -> None:
        """The disk is full or fails, SQLite has rolled back: the next transaction takes over what the log has."""
        if not self._unsaved:
            log.error("the metadata database cannot be written, its changes stay in memory: %s", error)
        self._session.close()
        self._unsaved.append(taken)
        if self._connection.in_transaction:
            self._control.execute("ROLLBACK")
        self._begin_next()

    def _stop(self, reason: str) -> None:
        """The transaction lacks changes that the log has, or there is none: nothing may be written any more."""
        self._stopped = reason
        self._connection.pragma("query_only", True)
        log.critical("the metadata database failed, only mounting again can help: %s", reason)

    # Beside the writer

    def begin_checkpoint(self) -> Checkpoint:
        """Fix what a checkpoint may copy: all that is committed, which the caller knows to be on the drives.

        Called in the loop; then `run` of what it returns in a worker thread. Later commits do not disturb it.
        """
        return self._checkpointer.begin()

    @property
    def checkpoint_bytes_due(self) -> int:
        """Bytes in the write-ahead log that no checkpoint has copied."""
        return self._checkpointer.uncopied_pages * self._page_bytes

    def renew_transaction(self) -> bool:
        """Move the open transaction behind the write-ahead log, and empty that log, all of which is copied.

        Without this the log would grow for ever: it can only be emptied between transactions, and at the end
        of a transaction it has new frames, which are not synced on the drives and must not be copied. So what
        the transaction has changed is done again in a new one, at about 6 us per row; done when there is
        nothing to do again or when the log is large. True: `sync_wal` is to be called in a worker thread
        before the next commit.
        """
        if not self._checkpointer.is_complete or self._unsaved or self._stopped is not None:
            return False
        wal_bytes = self._checkpointer.wal_pages * self._page_bytes
        if self.changes_pending() and wal_bytes < connections.WAL_RESTART_BYTES:
            return False
        for memory in self._memories:
            memory.flush()
        changeset, weight = self._session.changeset(), self._weight
        self._session.close()
        self._control.execute("ROLLBACK")
        self._begin_next()
        try:
            if changeset and self._stopped is None:
                apply_changeset(self._connection, changeset)  # recorded again
        except (apsw.Error, LogDamagedError) as error:
            self._stop(str(error))
        self._weight = weight
        return self._checkpointer.wal_pages == 0

    def sync_wal(self) -> None:
        """Make the emptied write-ahead log durable before anything is written to it. In a worker thread."""
        try:
            with connections.database_files(self.path).wal.open("rb") as file:
                os.fsync(file.fileno())
        except OSError:
            self._checkpointer.must_write_again = True
            raise

    def wal_bytes(self) -> int:
        """Size of the write-ahead log's file."""
        wal = connections.database_files(self.path).wal
        return wal.stat().st_size if wal.exists() else 0

    def unsaved_commits(self) -> int:
        """Commits that the log has and that the disk under the database did not take so far."""
        return len(self._unsaved)

    def reader(self) -> Reader:
        """A connection that only reads, at the last commit, for a worker thread; the caller closes it."""
        return Reader(self.path)

    def quick_check(self) -> list[str]:
        """What SQLite finds wrong with its structures; empty when they are sound. In a worker thread."""
        try:
            with self.reader() as reader:
                return reader.quick_check()
        except LogDamagedError as error:
            return [str(error)]

    def serialize_snapshot(self, path_out: Path) -> None:
        """Write the last commit as a compact database to `path_out`, which must not exist.

        In a worker thread. NoSpaceError when there is no space for it, StoreError when it cannot be written.
        """
        with self.reader() as reader:
            reader.copy_to(path_out)
