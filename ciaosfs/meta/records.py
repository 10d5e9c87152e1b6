"""Single rows as `ciaosfs inspect` shows them: plain values under the names of their columns. Of a `Reader`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import apsw

from ciaosfs.base.errors import LogDamagedError
from ciaosfs.meta import schema
from ciaosfs.meta.counters import Counter
from ciaosfs.meta.reader import Reader

Fields = dict[str, Any]

_COLUMNS: Final = "SELECT name FROM pragma_table_info(?) ORDER BY cid"
_KEYS: Final = {
    "stripes": "stripe",
    "volumes": "volume",
    "drives": "number",
    "inodes": "ino",
}
_EXTENTS: Final = (
    "SELECT ino, offset, length, stripe_offset, stored_length, codec, skip FROM extents WHERE stripe = ?"
    " ORDER BY ino, offset LIMIT ?"
)
_PLACES: Final = (
    "SELECT shard_index, shards.volume, offset, drive FROM shards LEFT JOIN volumes ON volumes.volume = shards.volume"
    " WHERE stripe = ? ORDER BY shard_index"
)
_ON_DRIVE: Final = (
    "SELECT volumes.volume, kind, state, count(shards.stripe) FROM volumes"
    " LEFT JOIN shards ON shards.volume = volumes.volume"
    " WHERE drive = ? GROUP BY volumes.volume ORDER BY volumes.volume"
)
_IS_LIVE: Final = (
    "SELECT NOT (stripes.live_bytes = 0 AND stripes.kind = 1) FROM shards"
    " JOIN stripes ON stripes.stripe = shards.stripe"
    " WHERE shards.stripe = ? AND shard_index = ? AND volume = ? AND offset = ?"
)
_COUNTERS: Final = "SELECT counter, value FROM counters ORDER BY counter"


def row(reader: Reader, table: str, key: int) -> Fields | None:
    """A row of stripes, volumes, drives or inodes by its key; None when there is none."""
    found = next(reader.rows(f"SELECT * FROM {table} WHERE {_KEYS[table]} = ?", (key,)), None)
    return None if found is None else dict(zip(_columns(table), found, strict=True))


def places_of(reader: Reader, stripe_id: int) -> list[Fields]:
    """Where the metadata says that the shards of a stripe lie."""
    names = ("shard", "volume", "offset", "drive")
    return [dict(zip(names, values, strict=True)) for values in reader.rows(_PLACES, (stripe_id,))]


def extents_of(reader: Reader, stripe_id: int, limit: int) -> list[Fields]:
    """Up to `limit` extents on a stripe."""
    names = ("ino", "offset", "length", "stripe_offset", "stored_length", "codec", "skip")
    return [dict(zip(names, values, strict=True)) for values in reader.rows(_EXTENTS, (stripe_id, limit))]


def volumes_on(reader: Reader, drive: int) -> dict[int, Fields]:
    """The volumes the metadata knows on a drive, by id, with the number of shards in each."""
    names = ("kind", "state", "shards")
    return {
        values[0]: dict(zip(names, values[1:], strict=True)) for values in reader.rows(_ON_DRIVE, (drive,))
    }


def is_live(reader: Reader, stripe_id: int, shard_index: int, volume_id: int, offset: int) -> bool:
    """Whether the needle in this place is the shard that the metadata means, of a stripe that is not dead."""
    return any(values[0] for values in reader.rows(_IS_LIVE, (stripe_id, shard_index, volume_id, offset)))


def counters_of(reader: Reader) -> Fields:
    """The sums that are kept, by name."""
    known = {counter.value: counter.name.lower() for counter in Counter}
    return {known.get(number, str(number)): value for number, value in reader.rows(_COUNTERS)}


def changes_of(changeset: bytes) -> Iterator[Fields]:
    """What a commit changed, row by row: operation, table, key, and the values that came, by the names of the columns.

    LogDamagedError when it cannot be read.
    """
    try:
        for change in apsw.Changeset.iter(changeset):
            names = _columns(change.name)
            old, new = change.old or (), change.new or ()
            key = {names[at]: (old or new)[at] for at in sorted(change.pk_columns)}
            came = {
                names[at]: value
                for at, value in enumerate(new)
                if value is not apsw.no_change and at not in change.pk_columns
            }
            yield {"op": change.op.lower(), "table": change.name, "key": key, "values": came}
    except apsw.Error as error:
        raise LogDamagedError(f"The changes of a commit cannot be read: {error}.") from error


@cache
def _columns(table: str) -> list[str]:
    """The columns of a table, in order; known without any database."""
    connection = apsw.Connection(":memory:")
    try:
        connection.execute(schema.TABLES[table])
        return [values[0] for values in connection.execute(_COLUMNS, (table,))]
    except KeyError:
        raise LogDamagedError(f"A commit changes table {table}, which is unknown.") from None
    finally:
        connection.close()
