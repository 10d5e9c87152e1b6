"""The values that travel between floors: where a shard lies, what a stripe is made of, what a file range maps to.

All are immutable; a change is a new value. Bytes arguments accept anything with the buffer protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview


class VolumeKind(IntEnum):
    """What a volume is for; stored in its superblock."""

    DATA = 1
    """Shards of coded stripes."""
    LOG = 2
    """Commit needles, image roots and the replicated stripes that small commits write beside them."""


class StripeKind(IntEnum):
    """What a stripe's payload is; stored in the metadata and in needle headers."""

    FILE = 1
    IMAGE = 2


class Codec(IntEnum):
    """How the bytes of one extent are stored inside a stripe's payload."""

    RAW = 0
    ZSTD = 1


class ShardPlace(NamedTuple):
    """Where one shard's needle lies: `offset` is the first byte of its header inside volume `volume_id`."""

    shard_index: int
    volume_id: int
    offset: int


@dataclass(frozen=True, slots=True)
class StripeRecord:
    """One payload coded into `data_count + parity_count` shards.

    `places` holds an entry for every shard that was written, ordered by shard index; a shard with no
    entry is missing (the stripe was written degraded, or lost it since). `payload_bytes` is the length of the
    payload before padding; every shard is `shard_bytes` long. A replicated stripe has `data_count` 1.
    """

    stripe_id: int
    kind: StripeKind
    data_count: int
    parity_count: int
    payload_bytes: int
    shard_bytes: int
    places: tuple[ShardPlace, ...]

    @property
    def missing_count(self) -> int:
        return self.data_count + self.parity_count - len(self.places)


class Extent(NamedTuple):
    """A byte range of a file mapped to a range of a stripe's payload.

    File bytes `[offset, offset + length)` are bytes `[skip, skip + length)` of the block that is stored
    at payload bytes `[stripe_offset, stripe_offset + stored_length)` under `codec`. For RAW, skip is 0 and
    stored_length equals length. Ranges of a file without an extent are holes and read as zeros.
    """

    offset: int
    length: int
    stripe_id: int
    stripe_offset: int
    stored_length: int
    codec: int
    skip: int


@dataclass(frozen=True, slots=True)
class Space:
    """Usable space in payload bytes, after coding. `available` excludes what is held back for deletes and commits."""

    total: int
    free: int
    available: int
