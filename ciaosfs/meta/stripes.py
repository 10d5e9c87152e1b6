"""Stripes and where their shards lie.

`live_bytes` of a stripe changes with every extent on it. The changes are summed up in memory and written when
a changeset is taken, or before anything here reads them: one update per stripe and commit instead of one per
extent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from ciaosfs.base.types import ShardPlace, StripeKind, StripeRecord
from ciaosfs.meta.counters import Counter, Counters
from ciaosfs.meta.database import Database

_INSERT: Final = "INSERT INTO stripes VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)"
_INSERT_SHARD: Final = "INSERT INTO shards VALUES (?, ?, ?, ?)"
_LOAD: Final = (
    "SELECT s.stripe, s.kind, s.data_count, s.parity_count, s.payload_bytes, s.shard_bytes,"
    " p.shard_index, p.volume, p.offset FROM stripes AS s LEFT JOIN shards AS p ON p.stripe = s.stripe"
    " WHERE s.stripe = ? ORDER BY p.shard_index"
)
_DEAD: Final = "SELECT stripe FROM stripes WHERE live_bytes = 0 AND kind = 1 ORDER BY stripe LIMIT ?"
_PLACE: Final = "SELECT volume, offset FROM shards WHERE stripe = ? AND shard_index = ?"
_WITH_MISSING: Final = (
    "SELECT stripe FROM stripes WHERE missing > 0 ORDER BY missing DESC, stripe DESC LIMIT ?"
)
_IN_VOLUME: Final = (
    "SELECT DISTINCT stripe FROM shards WHERE volume = ? AND stripe > ? ORDER BY stripe LIMIT ?"
)
_AFTER: Final = "SELECT stripe FROM stripes WHERE stripe > ? ORDER BY stripe"
_HIGHEST: Final = "SELECT max(stripe) FROM stripes"
_LIVE: Final = "SELECT live_bytes FROM stripes WHERE stripe = ?"
_ADD_LIVE: Final = "UPDATE stripes SET live_bytes = live_bytes + ?2 WHERE stripe = ?1"
_ADD_MISSING: Final = "UPDATE stripes SET missing = missing + ?2 WHERE stripe = ?1"
_UNKEPT: Final = (
    "SELECT stripe FROM stripes WHERE kind = 2 AND NOT EXISTS"
    " (SELECT 1 FROM images WHERE stripe BETWEEN first_stripe AND last_stripe) ORDER BY stripe LIMIT ?"
)
_LET_GO: Final = "UPDATE stripes SET kind = 1 WHERE stripe = ? AND kind = 2 RETURNING payload_bytes"
_DELETE: Final = "DELETE FROM stripes WHERE stripe = ? RETURNING payload_bytes, kind, file_bytes"
_DELETE_SHARDS: Final = "DELETE FROM shards WHERE stripe = ?"
_DELETE_SHARD: Final = "DELETE FROM shards WHERE stripe = ? AND shard_index = ? AND volume = ? AND offset = ?"
_PUT_SHARD: Final = "INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?)"
_HAS_SHARD: Final = "SELECT 1 FROM shards WHERE stripe = ? AND shard_index = ?"
_MISSING: Final = "SELECT missing, count(*) FROM stripes WHERE missing > 0 GROUP BY missing"

_new = tuple.__new__


class Stripes:
    """The stripes of one database."""

    def __init__(self, database: Database, counters: Counters) -> None:
        self._database = database
        self._counters = counters
        self._read = database.executor()
        self._write = database.executor()
        self._live: dict[int, int] = {}
        self.on_moved: Callable[[int], None] = lambda stripe_id: None
        """Called with the id of a stripe whose shards lie elsewhere now; for caches of records."""
        self.on_inserted: Callable[[int], None] = lambda stripe_id: None
        """Called with the id of a stripe that was added."""
        self.on_placed: Callable[[int], None] = lambda stripe_id: None
        """Called when rows say where shards of a stripe lie. May be set at any time; must not raise."""
        database.add_memory(self)

    def insert(self, record: StripeRecord, file_bytes: int | None = None) -> None:
        """Add a stripe that nothing refers to yet: dead until `Extents.replace` puts extents on it.

        `file_bytes` are the bytes of files that went into its payload; as many as the payload has if nothing was
        compressed.
        """
        if file_bytes is None:
            file_bytes = record.payload_bytes if record.kind == StripeKind.FILE else 0
        write = self._write
        stripe_id = record.stripe_id
        write(
            _INSERT,
            (
                stripe_id,
                record.kind,
                record.data_count,
                record.parity_count,
                record.payload_bytes,
                record.shard_bytes,
                record.missing_count,
                file_bytes,
            ),
        )
        for shard_index, volume_id, offset in record.places:
            write(_INSERT_SHARD, (stripe_id, shard_index, volume_id, offset))
        values = self._counters.values
        self.on_inserted(stripe_id)
        values[Counter.STRIPES] += 1
        values[Counter.PAYLOAD_BYTES] += record.payload_bytes
        values[Counter.FILE_BYTES] += file_bytes
        if record.kind is StripeKind.IMAGE:
            values[Counter.IMAGE_BYTES] += record.payload_bytes
        self.on_placed(stripe_id)

    def place(self, stripe_id: int, shard_index: int) -> ShardPlace | None:
        """Where a shard lies; None when it is missing, or the stripe is unknown."""
        row = self._read(_PLACE, (stripe_id, shard_index)).get
        return None if row is None else ShardPlace(shard_index, *row)

    def load(self, stripe_id: int) -> StripeRecord | None:
        rows = self._read(_LOAD, (stripe_id,)).fetchall()
        return _record(rows) if rows else None

    def delete(self, stripe_id: int) -> None:
        """Forget the stripe and its shards, if it is known; its bytes on the drives are the caller's affair."""
        deleted = self._write(_DELETE, (stripe_id,)).get
        self._live.pop(stripe_id, None)
        if deleted is None:
            return
        payload_bytes, kind, file_bytes = deleted
        self._write(_DELETE_SHARDS, (stripe_id,))
        values = self._counters.values
        values[Counter.STRIPES] -= 1
        values[Counter.PAYLOAD_BYTES] -= payload_bytes
        values[Counter.FILE_BYTES] -= file_bytes
        if kind == StripeKind.IMAGE:
            values[Counter.IMAGE_BYTES] -= payload_bytes

    def unkept(self, limit: int) -> list[int]:
        """Up to `limit` stripes of kind IMAGE that belong to no image in `images`, lowest ids first."""
        return [row[0] for row in self._read(_UNKEPT, (limit,)).fetchall()]

    def let_go(self, stripe_id: int) -> None:
        """A stripe of an image is not needed any more: it is a dead stripe of files from here on."""
        payload_bytes = self._write(_LET_GO, (stripe_id,)).get
        if payload_bytes is not None:
            self._counters.values[Counter.IMAGE_BYTES] -= payload_bytes

    def add_live(self, stripe_id: int, delta: int) -> None:
        """Extents on the stripe came or went: `delta` bytes of files. For `Extents`."""
        live = self._live
        before = live.get(stripe_id)
        if before is None:
            self._database.weigh(1)  # the row that `flush` will change
            before = 0
        live[stripe_id] = before + delta

    def live_bytes(self, stripe_id: int) -> int | None:
        """Bytes of files that lie in the stripe; None when it is unknown."""
        self.flush()
        live: int | None = self._read(_LIVE, (stripe_id,)).get
        return live

    def dead(self, limit: int) -> list[int]:
        """The ids of up to `limit` stripes of kind FILE without extents, lowest first."""
        self.flush()
        return [row[0] for row in self._read(_DEAD, (limit,)).fetchall()]

    def with_missing(self, limit: int) -> list[StripeRecord]:
        """Up to `limit` stripes with missing shards, those that miss most first: the queue of repair."""
        return self._records(self._read(_WITH_MISSING, (limit,)).fetchall())

    def in_volume(self, volume_id: int, after: int, limit: int) -> list[StripeRecord]:
        """Up to `limit` stripes with ids above `after` that have a shard in the volume."""
        return self._records(self._read(_IN_VOLUME, (volume_id, after, limit)).fetchall())

    def ids_after(self, stripe_id: int) -> list[int]:
        """All ids above `stripe_id`, in order."""
        return [row[0] for row in self._read(_AFTER, (stripe_id,)).fetchall()]

    def highest_id(self) -> int:
        """The highest stripe id there is; 0 without stripes."""
        return self._read(_HIGHEST).get or 0

    def put_shard(self, stripe_id: int, place: ShardPlace) -> None:
        """A shard was written anew, or moved: it lies at `place` now."""
        is_new = self._read(_HAS_SHARD, (stripe_id, place.shard_index)).get is None
        self._write(_PUT_SHARD, (stripe_id, *place))
        if is_new:
            self._write(_ADD_MISSING, (stripe_id, -1))
        self.on_moved(stripe_id)
        self.on_placed(stripe_id)

    def forget_shard(self, stripe_id: int, place: ShardPlace) -> bool:
        """The shard at `place` is lost and counts as missing. False when it had moved or was missing before."""
        before = self._database.changes()
        self._write(_DELETE_SHARD, (stripe_id, *place))
        if self._database.changes() == before:
            return False
        self._write(_ADD_MISSING, (stripe_id, 1))
        self.on_moved(stripe_id)
        return True

    def count(self) -> int:
        """How many stripes there are."""
        return self._counters.values[Counter.STRIPES]

    def count_by_missing(self) -> dict[int, int]:
        """How many stripes miss how many shards; 0 stands for those that are whole."""
        counts = dict(self._read(_MISSING).fetchall())
        whole = self.count() - sum(counts.values())
        return {0: whole, **counts} if whole else counts

    def flush(self) -> None:
        """Write the sums of `live_bytes` into the open transaction."""
        if not self._live:
            return
        for stripe_id, delta in self._live.items():
            if delta:
                self._write(_ADD_LIVE, (stripe_id, delta))
        self._live.clear()

    def reload(self) -> None:
        """Forget what is in memory: the rows have changed."""
        self._live.clear()

    def _records(self, ids: Sequence[tuple[int]]) -> list[StripeRecord]:
        records = []
        for (stripe_id,) in ids:
            record = self.load(stripe_id)
            if record is not None:
                records.append(record)
        return records


def _record(rows: Sequence[tuple[Any, ...]]) -> StripeRecord:
    """The record of one stripe from its rows, one per shard, or one with NULLs when it has no shard."""
    stripe_id, kind, data_count, parity_count, payload_bytes, shard_bytes = rows[0][:6]
    places = tuple([_new(ShardPlace, row[6:]) for row in rows if row[6] is not None])
    return StripeRecord(
        stripe_id, StripeKind(kind), data_count, parity_count, payload_bytes, shard_bytes, places
    )
