"""How a payload is cut into shards, and which part of which shard a range of the payload is. Pure.

Shards are contiguous pieces: data shard `i` holds payload bytes `[i * shard_bytes, (i + 1) * shard_bytes)`,
the last ones padded with zeros. So a small range lies on one drive, and any range of one shard can be decoded
from the same range of others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ciaosfs.base import limits
from ciaosfs.base.types import ShardPlace, StripeRecord, VolumeKind


class ShardRange(NamedTuple):
    """Bytes `[start, start + length)` of one data shard."""

    shard_index: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Shape:
    """The form a payload gets: how many shards of which size, in which kind of volume."""

    data_count: int
    parity_count: int
    payload_bytes: int
    shard_bytes: int
    volume_kind: VolumeKind

    @property
    def shard_count(self) -> int:
        return self.data_count + self.parity_count


def shard_bytes_for(payload_bytes: int, data_count: int) -> int:
    """Length of each shard. Rounded up so that padding which the needle would have anyway becomes part of the
    shard:

    whole cache lines for small shards (vector code likes them), whole pages for those that start on a page. A
    replicated payload is its own shard and is not padded.
    """
    if data_count == 1:
        return payload_bytes
    length = -(-payload_bytes // data_count)
    unit = limits.NEEDLE_ALIGN_LARGE if length >= limits.NEEDLE_LARGE_BYTES else limits.NEEDLE_ALIGN
    return -(-length // unit) * unit


def coded_shape(payload_bytes: int, data_count: int, parity_count: int) -> Shape:
    """The k+m form, in data volumes."""
    assert 0 < payload_bytes <= limits.STRIPE_PAYLOAD_BYTES_MAX
    shard_bytes = shard_bytes_for(payload_bytes, data_count)
    return Shape(data_count, parity_count, payload_bytes, shard_bytes, VolumeKind.DATA)


def hot_shape(payload_bytes: int, parity_count: int) -> Shape:
    """The replicated form: 1+m copies in the log volumes, where one sync covers them and the commit
    needle."""
    assert 0 < payload_bytes <= limits.HOT_PAYLOAD_BYTES_MAX
    return Shape(1, parity_count, payload_bytes, payload_bytes, VolumeKind.LOG)


def plan_read(stripe: StripeRecord, offset: int, length: int) -> list[ShardRange]:
    """The ranges of data shards that make up payload bytes `[offset, offset + length)`, in order.

    The range must lie inside the payload: a caller that asks for more has lost track of its extents.
    """
    assert offset >= 0 and length > 0 and offset + length <= stripe.payload_bytes
    shard_bytes = stripe.shard_bytes
    ranges = []
    end = offset + length
    while offset < end:
        index, start = divmod(offset, shard_bytes)
        part = min(shard_bytes - start, end - offset)
        ranges.append(ShardRange(index, start, part))
        offset += part
    return ranges


def split_blocks(wanted: ShardRange) -> list[ShardRange]:
    """The range in pieces that lie in one checksummed block each."""
    unit = limits.CHECK_BLOCK_BYTES
    cuts = [wanted.start, *range((wanted.start // unit + 1) * unit, wanted.start + wanted.length, unit)]
    ends = [*cuts[1:], wanted.start + wanted.length]
    return [ShardRange(wanted.shard_index, start, end - start) for start, end in zip(cuts, ends, strict=True)]


def place_of(stripe: StripeRecord, shard_index: int) -> ShardPlace | None:
    """Where shard `shard_index` lies; None when the stripe has no such shard at present."""
    places = stripe.places
    if shard_index < len(places) and places[shard_index].shard_index == shard_index:
        return places[shard_index]
    for place in places:
        if place.shard_index == shard_index:
            return place
    return None


def plan_degraded(stripe: StripeRecord, wanted: int) -> list[ShardPlace]:
    """Shards to decode `wanted` from, in the order to try them: data before parity.

    With every other data shard and one parity shard the decoder has one row to solve, the cheapest case.
    """
    return [place for place in stripe.places if place.shard_index != wanted]
