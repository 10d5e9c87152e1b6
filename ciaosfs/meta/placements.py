"""Every shard that something depends on, in the order in which they lie on the drives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ciaosfs.codec.needle import needle_bytes_for
from ciaosfs.meta.reader import Reader


class Placement(NamedTuple):
    """One shard of a stripe that is not dead, with what its needle must say. `drive` is None without a volume row."""

    volume_id: int
    offset: int
    stripe_id: int
    shard_index: int
    kind: int
    data_count: int
    parity_count: int
    payload_bytes: int
    shard_bytes: int
    drive: int | None

    @property
    def end(self) -> int:
        """Where the needle ends in the volume."""
        return self.offset + needle_bytes_for(self.shard_bytes)


class VolumeOfShards(NamedTuple):
    """A volume with such shards, and how many; `drive` and `kind` are None when there is no row of it."""

    volume_id: int
    drive: int | None
    kind: int | None
    shards: int


_COLUMNS: Final = (
    "SELECT shards.volume, shards.offset, shards.stripe, shards.shard_index, stripes.kind, data_count, parity_count,"
    " payload_bytes, shard_bytes, drive FROM shards JOIN stripes ON stripes.stripe = shards.stripe"
    " LEFT JOIN volumes ON volumes.volume = shards.volume"
    " WHERE NOT (stripes.live_bytes = 0 AND stripes.kind = 1)"
)
_ALL: Final = _COLUMNS + " ORDER BY shards.volume, shards.offset"
_IN_VOLUME: Final = _COLUMNS + " AND shards.volume = ? ORDER BY shards.offset"
_VOLUMES: Final = (
    "SELECT shards.volume, drive, volumes.kind, count(*) FROM shards JOIN stripes ON stripes.stripe = shards.stripe"
    " LEFT JOIN volumes ON volumes.volume = shards.volume"
    " WHERE NOT (stripes.live_bytes = 0 AND stripes.kind = 1) GROUP BY shards.volume ORDER BY drive, shards.volume"
)
_ONE: Final = _COLUMNS + " AND shards.stripe = ? AND shards.shard_index = ?"
_SUMS: Final = (
    "SELECT count(*), ifnull(sum(shard_bytes), 0) FROM shards JOIN stripes ON stripes.stripe = shards.stripe"
    " WHERE NOT (stripes.live_bytes = 0 AND stripes.kind = 1)"
)


def placements(reader: Reader) -> Iterator[Placement]:
    """Volume by volume, by offset. What is dead may have been given back already, and is left out."""
    for row in reader.rows(_ALL):
        yield Placement._make(row)


def placements_in(reader: Reader, volume_id: int) -> Iterator[Placement]:
    """Those in one volume, by offset."""
    for row in reader.rows(_IN_VOLUME, (volume_id,)):
        yield Placement._make(row)


def volumes_of_shards(reader: Reader) -> list[VolumeOfShards]:
    """The volumes in which there is any, drive by drive."""
    return [VolumeOfShards._make(row) for row in reader.rows(_VOLUMES)]


def placement_of(reader: Reader, stripe_id: int, shard_index: int) -> Placement | None:
    """Where a shard lies at the reader's moment; None when it is missing, or its stripe is dead or gone."""
    return next((Placement._make(row) for row in reader.rows(_ONE, (stripe_id, shard_index))), None)


def count_placements(reader: Reader) -> tuple[int, int]:
    """How many `placements` there are, and the bytes of their shards."""
    shards, shard_bytes = next(reader.rows(_SUMS))
    return shards, shard_bytes
