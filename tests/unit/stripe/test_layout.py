"""How payloads are cut, and which shard ranges a payload range is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciaosfs.base import limits
from ciaosfs.base.types import Buffer, ShardPlace, StripeKind, StripeRecord, VolumeKind
from ciaosfs.codec.needle import needle_bytes_for
from ciaosfs.stripe.layout import (
    ShardRange,
    coded_shape,
    hot_shape,
    place_of,
    plan_degraded,
    plan_read,
    shard_bytes_for,
    split_blocks,
)
from ciaosfs.stripe.writer import cut_shards


def record(payload_bytes: int, data_count: int, present: tuple[int, ...] = ()) -> StripeRecord:
    places = tuple(ShardPlace(index, 100 + index, 4096) for index in present)
    shard_bytes = shard_bytes_for(payload_bytes, data_count)
    return StripeRecord(1, StripeKind.FILE, data_count, 2, payload_bytes, shard_bytes, places)


def test_a_full_stripe_has_shards_of_one_mebibyte_with_four_data_shards() -> None:
    assert shard_bytes_for(limits.STRIPE_PAYLOAD_BYTES_MAX, 4) == limits.MIB


@given(st.integers(1, limits.STRIPE_PAYLOAD_BYTES_MAX), st.integers(2, 20))
def test_shards_hold_the_payload_and_rounding_adds_nothing_to_their_needles(length: int, count: int) -> None:
    shard_bytes = shard_bytes_for(length, count)
    assert shard_bytes * count >= length
    assert needle_bytes_for(shard_bytes) <= needle_bytes_for(-(-length // count)) + limits.NEEDLE_ALIGN


def test_a_replicated_payload_is_its_own_shard() -> None:
    assert hot_shape(100, 2).shard_bytes == 100
    assert hot_shape(100, 2).volume_kind is VolumeKind.LOG
    assert coded_shape(100, 1, 1).volume_kind is VolumeKind.DATA


@given(st.data())
def test_the_ranges_of_a_read_are_the_payload_range(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 300_000))
    count = data.draw(st.integers(1, 7))
    offset = data.draw(st.integers(0, length - 1))
    wanted = data.draw(st.integers(1, length - offset))
    stripe = record(length, count)
    at = offset
    for shard_index, start, part in plan_read(stripe, offset, wanted):
        assert shard_index * stripe.shard_bytes + start == at
        assert part > 0 and start + part <= stripe.shard_bytes
        assert shard_index < count
        at += part
    assert at == offset + wanted


def test_a_read_beyond_the_payload_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(AssertionError):
        plan_read(record(1000, 4), 900, 101)


def test_a_missing_shard_has_no_place_and_the_others_are_found_behind_it() -> None:
    stripe = record(1000, 4, (0, 2, 3, 5))
    assert [place_of(stripe, index) is not None for index in range(6)] == [
        True,
        False,
        True,
        True,
        False,
        True,
    ]
    assert place_of(stripe, 3) == ShardPlace(3, 103, 4096)


def test_a_shard_is_decoded_from_data_before_parity() -> None:
    stripe = record(1000, 4, (0, 1, 2, 3, 4, 5))
    assert [place.shard_index for place in plan_degraded(stripe, 1)] == [0, 2, 3, 4, 5]


@given(st.lists(st.binary(max_size=900), max_size=9), st.integers(2, 6))
def test_cut_shards_are_the_payload_padded_with_zeros(pieces: list[bytes], count: int) -> None:
    payload = b"".join(pieces)
    if not payload:
        return
    shard_bytes = shard_bytes_for(len(payload), count)
    shards = cut_shards(pieces, count, shard_bytes)
    assert [len(shard) for shard in shards] == [shard_bytes] * count
    assert b"".join(shards) == payload.ljust(count * shard_bytes, b"\0")


def test_pieces_of_exactly_a_shard_and_slices_of_one_piece_are_not_copied() -> None:
    pieces: list[Buffer] = [bytes([number]) * 4096 for number in range(4)]
    for piece, shard in zip(pieces, cut_shards(pieces, 4, 4096), strict=True):
        assert isinstance(shard, memoryview) and shard.obj is piece
    whole = bytes(16384)
    for shard in cut_shards([whole], 4, 4096):
        assert isinstance(shard, memoryview) and shard.obj is whole


def test_a_range_is_split_at_the_blocks_and_nowhere_else() -> None:
    unit = limits.CHECK_BLOCK_BYTES
    for start, length in ((0, unit), (5, 7), (unit - 1, 2), (unit, 3 * unit), (100, 3 * unit)):
        parts = split_blocks(ShardRange(3, start, length))
        assert parts[0].start == start and sum(part.length for part in parts) == length
        for left, right in itertools.pairwise(parts):
            assert left.start + left.length == right.start and right.start % unit == 0
        assert all(part.start // unit == (part.start + part.length - 1) // unit for part in parts)
