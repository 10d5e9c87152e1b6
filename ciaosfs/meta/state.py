"""Which commit of the drives' log the database is at, and the identity of that commit."""

from __future__ import annotations

import secrets
import struct
from typing import Any, Final, NamedTuple

from ciaosfs.base.errors import LogDamagedError
from ciaosfs.codec.checksum import hash64
from ciaosfs.meta.database import Database
from ciaosfs.meta.reader import Reader

_IDENTITY: Final = struct.Struct("<16sqqqq")
STATE_QUERY: Final = (
    "SELECT store_id, name_seed, sequence, epoch, parent_id, time_ns, log_volume_min FROM state"
)
_SAVE: Final = (
    "INSERT INTO state (id, store_id, name_seed, sequence, epoch, parent_id, time_ns, log_volume_min)"
    " VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO UPDATE SET"
    " sequence = ?3, epoch = ?4, parent_id = ?5, time_ns = ?6, log_volume_min = ?7"
)


class State(NamedTuple):
    """One commit as the `state` row has it; see schema.py for the fields."""

    store_id: bytes
    name_seed: int
    sequence: int
    epoch: int
    parent_id: int
    time_ns: int
    log_volume_min: int

    @classmethod
    def first(cls, store_id: bytes) -> State:
        """The state of a store without any commit."""
        return cls(store_id, secrets.randbits(63), 0, 0, 0, 0, 0)

    @property
    def commit_id(self) -> int:
        """The commit's identity, 63 bits; 0 before the first commit.

        It covers who made the commit, when, and on top of which one: not its content, since the row that
        tells it is part of that content. The content has its own checksums (`commitlog`, and the needle's
        blocks).
        """
        if self.sequence == 0:
            return 0
        identity = (self.store_id, self.sequence, self.epoch, self.parent_id, self.time_ns)
        return hash64(_IDENTITY.pack(*identity)) >> 1

    def replace(self, **changes: Any) -> State:
        """A copy with other values in the named fields."""
        return self._replace(**changes)


def read_state(reader: Reader) -> State | None:
    """The state at the reader's moment; None when nothing had been committed."""
    return next((State._make(row) for row in reader.rows(STATE_QUERY)), None)


class StateTable:
    """The `state` row of one database.

    `load` gives the state of the last commit, not what `save` has put into the open transaction: when the
    append of a commit needle fails, the next attempt stands on the same parent with the same sequence number.
    """

    def __init__(self, database: Database) -> None:
        self._execute = database.executor()
        self._start: State | None = None
        self._committed: State | None = None
        self._pending: State | None = None
        database.add_memory(self)
        database.on_commit(self._promote)

    def load(self) -> State:
        """The state of the last commit. LogDamagedError when the database has none and none was given."""
        if self._committed is None:
            raise LogDamagedError("The metadata database does not say which commit it is at.")
        return self._committed

    @property
    def is_known(self) -> bool:
        """Whether `load` has an answer."""
        return self._committed is not None

    def start(self, state: State) -> None:
        """Stand at `state`, of a store without commits; nothing is written before the first `save`."""
        assert self._committed is None and state.sequence == 0
        self._start = self._committed = state

    def save(self, state: State) -> None:
        """Put `state` into the open transaction; it counts from its commit on."""
        committed = self.load()
        assert state.sequence == committed.sequence + 1 and state.parent_id == committed.commit_id, (
            "the chain broke"
        )
        assert state.store_id == committed.store_id and state.name_seed == committed.name_seed
        self._execute(_SAVE, state)
        self._pending = state

    def successor(self, *, epoch: int, time_ns: int, log_volume_min: int) -> State:
        """The next commit's state. A further attempt at it gets a later time even if the clock steps back."""
        committed = self.load()
        last = self._pending or committed
        return committed._replace(
            sequence=committed.sequence + 1,
            epoch=epoch,
            parent_id=committed.commit_id,
            time_ns=max(time_ns, last.time_ns + 1),
            log_volume_min=log_volume_min,
        )

    def flush(self) -> None:
        """Nothing waits in memory: `save` writes at once."""

    def reload(self) -> None:
        """Read the row; without one, stand where `start` said."""
        self._pending = None
        row = self._execute(STATE_QUERY).get
        self._committed = self._start if row is None else State._make(row)

    def _promote(self) -> None:
        if self._pending is not None:
            self._committed, self._pending = self._pending, None
