"""The facade: one database and its tables, wired together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ciaosfs.base import clock, limits
from ciaosfs.base.errors import LogDamagedError
from ciaosfs.codec.checksum import hash64
from ciaosfs.meta.counters import Counter, Counters
from ciaosfs.meta.database import Database
from ciaosfs.meta.dentries import Dentries
from ciaosfs.meta.extents import Extents
from ciaosfs.meta.imagefile import DatabaseCopy
from ciaosfs.meta.images import Images
from ciaosfs.meta.inodes import Inodes
from ciaosfs.meta.jobs import Jobs
from ciaosfs.meta.reader import Reader
from ciaosfs.meta.state import State, StateTable
from ciaosfs.meta.stripes import Stripes
from ciaosfs.meta.tokens import Tokens
from ciaosfs.meta.trims import Trims
from ciaosfs.meta.users import Users
from ciaosfs.meta.volumes import Volumes
from ciaosfs.meta.wal import drop_newest_commit
from ciaosfs.meta.xattrs import Xattrs

CHECKPOINT_BYTES: Final = 8 * limits.MIB
"""So much of the write-ahead log waits before a checkpoint copies it: hot pages are then written once, not often."""
CHECKPOINT_INTERVAL_S: Final = 60.0
"""... or so long: what is not copied after a power cut has to be applied from the drives' log."""


@dataclass(frozen=True, slots=True)
class MetadataStatistics:
    """A moment of the metadata: counts, and how far SQLite's files are behind."""

    files: int
    directories: int
    others: int
    allocated_bytes: int
    stripes: int
    payload_bytes: int
    changes_pending: int
    wal_bytes: int
    unsaved_commits: int


class Metadata:
    """The metadata of one open store. Methods are for the loop unless they say "in a worker thread".

    Every change is part of the one open transaction. `take_changeset`, then the log, then `commit`.
    """

    def __init__(self, database: Database, hash_name: Callable[[bytes, int], int] = hash64) -> None:
        """Takes over `database`. `hash_name` is for tests of collisions."""
        self.database = database
        self.counters = Counters(database)
        self.state = StateTable(database)
        self.inodes = Inodes(database, self.counters)
        self.dentries = Dentries(database, hash_name)
        self.stripes = Stripes(database, self.counters)
        self.extents = Extents(database, self.counters, self.stripes)
        self.trims = Trims(database)
        self.volumes = Volumes(database)
        self.xattrs = Xattrs(database)
        self.jobs = Jobs(database)
        self.images = Images(database)
        self.users = Users(database)
        self.tokens = Tokens(database, self.counters)
        self._checkpointed_s = clock.monotonic_s()
        database.add_memory(_NameSeed(self.state, self.dentries))
        self.changes_pending = database.changes_pending
        self.take_changeset = database.take_changeset
        self.commit = database.commit
        self.rollback = database.rollback
        self.apply = database.apply

    @classmethod
    def open(cls, path: Path, *, drop_wal: bool = False) -> Metadata:
        """Open an existing database at its last commit, or with `drop_wal` at the commit before that.

        `drop_wal` takes the newest commit out of SQLite's write-ahead log: for a database that is ahead of
        the drives. May be repeated. LogDamagedError when the database is missing or damaged, or when that log
        holds no commit to drop: the caller rebuilds from the drives. StoreError when the file is foreign or
        newer.
        """
        if drop_wal and not drop_newest_commit(path):
            raise LogDamagedError(f"The metadata database {path} cannot go back to an earlier commit.")
        return cls._over(Database.open(path), None)

    @classmethod
    def create_fresh(cls, path: Path, store_id: bytes) -> Metadata:
        """Remove what is at `path` and make an empty database, before the store's first commit."""
        return cls._over(Database.create_fresh(path), State.first(store_id))

    @classmethod
    def _over(cls, database: Database, start: State | None) -> Metadata:
        try:
            meta = cls(database)
            if start is not None:
                meta.state.start(start)
                meta.dentries.seed = start.name_seed
            meta.state.load()
        except BaseException:
            database.close()
            raise
        return meta

    def close(self) -> None:
        """Close without a commit. May be called in a worker thread."""
        self.database.close()

    async def checkpoint_if_due(
        self, run: Callable[[Callable[[], None]], Awaitable[None]], *, now: bool = False
    ) -> None:
        """Copy SQLite's write-ahead log into the database when much waits there, or has waited long, or `now`.

        To be called when everything committed is synced on the drives. `run` runs a function in a worker
        thread; requests may go on meanwhile, the next commit comes after it. NoSpaceError or StoreError when
        the disk under the database fails.
        """
        due = self.database.checkpoint_bytes_due
        if due == 0:
            await self._renew(run)
            return
        if (
            not now
            and due < CHECKPOINT_BYTES
            and clock.monotonic_s() < self._checkpointed_s + CHECKPOINT_INTERVAL_S
        ):
            return
        self._checkpointed_s = clock.monotonic_s()
        checkpoint = self.database.begin_checkpoint()
        try:
            await run(checkpoint.run)
        finally:
            checkpoint.finish()
        await self._renew(run)

    async def _renew(self, run: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        if self.database.renew_transaction():
            await run(self.database.sync_wal)

    def reader(self) -> Reader:
        """A read-only connection at the last commit, for a worker thread; the caller closes it."""
        return self.database.reader()

    def quick_check(self) -> list[str]:
        """What is wrong with SQLite's structures, as sentences. In a worker thread."""
        return self.database.quick_check()

    def serialize_snapshot(self, path_out: Path) -> None:
        """Write the last commit as a database to `path_out`. In a worker thread. NoSpaceError, StoreError."""
        self.database.serialize_snapshot(path_out)

    def copy_for_image(self) -> DatabaseCopy:
        """The last commit as a database of its own, beside this one; the caller closes it. In a worker thread.

        NoSpaceError, StoreError; LogDamagedError when this database is damaged.
        """
        path = self.database.path
        return DatabaseCopy.make(path, path.with_name(path.name + "-image"))

    def statistics(self) -> MetadataStatistics:
        values = self.counters.values
        return MetadataStatistics(
            files=values[Counter.FILES],
            directories=values[Counter.DIRECTORIES],
            others=values[Counter.OTHERS],
            allocated_bytes=values[Counter.ALLOCATED_BYTES],
            stripes=values[Counter.STRIPES],
            payload_bytes=values[Counter.PAYLOAD_BYTES],
            changes_pending=self.changes_pending(),
            wal_bytes=self.database.wal_bytes(),
            unsaved_commits=self.database.unsaved_commits(),
        )


class _NameSeed:
    """Hands the seed of the name hash from the state to the dentries whenever the rows are read again."""

    def __init__(self, state: StateTable, dentries: Dentries) -> None:
        self._state = state
        self._dentries = dentries

    def flush(self) -> None:
        """Nothing waits."""

    def reload(self) -> None:
        if self._state.is_known:
            self._dentries.seed = self._state.load().name_seed
