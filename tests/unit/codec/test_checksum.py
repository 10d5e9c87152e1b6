"""Block checksums: independent of how the payload is cut, dependent on where the block belongs."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciaosfs.base.limits import CHECK_BLOCK_BYTES
from ciaosfs.codec.checksum import SUM_BYTES, block_checksums, block_count, hash64, verify_blocks

PAYLOAD = bytes(range(251)) * 200  # 50,200 bytes: three whole blocks and a short one


def test_values_of_format_version_1_never_change() -> None:
    assert hash64(b"") == 0x2D06800538D394C2
    assert hash64(b"ciaosfs") == GOLDEN_HASH
    assert hash64(b"ciaosfs", 1) == GOLDEN_SEEDED
    assert block_checksums([PAYLOAD], 2**63 - 1, 5).hex() == GOLDEN_TABLE


GOLDEN_HASH = 0xD3B8E8F99C08CF6A
GOLDEN_SEEDED = 0x53BC9832FDFABE0C
GOLDEN_TABLE = "d0da1d9918350f76d8ea9f0fed25b1a4eb8415df793b856493a9a97a55a58e43"


def test_seed_is_the_one_the_format_names() -> None:
    stripe_id, shard_index, block_index = 2**62 + 12345, 3, 2
    seed = (stripe_id * 0x9E3779B97F4A7C15 + (shard_index << 32) + block_index) % 2**64
    block = PAYLOAD[block_index * CHECK_BLOCK_BYTES : (block_index + 1) * CHECK_BLOCK_BYTES]
    sums = block_checksums([PAYLOAD], stripe_id, shard_index)
    assert struct.unpack("<4Q", sums)[block_index] == hash64(block, seed)


@pytest.mark.parametrize(
    ("length", "count"),
    [(0, 0), (1, 1), (CHECK_BLOCK_BYTES, 1), (CHECK_BLOCK_BYTES + 1, 2), (4 * CHECK_BLOCK_BYTES, 4)],
)
def test_a_shard_has_one_sum_per_block_or_part_of_one(length: int, count: int) -> None:
    assert block_count(length) == count
    assert len(block_checksums([bytes(length)], 1, 0)) == count * SUM_BYTES


@given(st.lists(st.integers(0, len(PAYLOAD)), max_size=8))
def test_how_the_payload_is_cut_does_not_matter(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(PAYLOAD)]
    parts = [memoryview(PAYLOAD)[start:end] for start, end in pairwise(edges)]
    assert block_checksums(parts, 7, 1) == block_checksums([PAYLOAD], 7, 1)


def test_no_payload_in_any_number_of_parts_has_no_sums() -> None:
    assert block_checksums([], 1, 0) == block_checksums([b"", b""], 1, 0) == b""
    assert verify_blocks(b"", b"", 0, 1, 0) is None


def test_good_blocks_verify_wherever_the_range_starts() -> None:
    sums = block_checksums([PAYLOAD], 9, 2)
    for first in range(4):
        for last in range(first + 1, 5):
            data = PAYLOAD[first * CHECK_BLOCK_BYTES : last * CHECK_BLOCK_BYTES]
            assert verify_blocks(memoryview(data), sums, first, 9, 2) is None


@pytest.mark.parametrize("block_index", range(4))
def test_the_first_bad_block_is_named_by_its_index_in_the_shard(block_index: int) -> None:
    sums = block_checksums([PAYLOAD], 9, 2)
    data = bytearray(PAYLOAD)
    data[block_index * CHECK_BLOCK_BYTES + 17] ^= 4
    data[-1] ^= 4  # a second one, behind it or the same
    assert verify_blocks(data, sums, 0, 9, 2) == block_index
    assert verify_blocks(data[block_index * CHECK_BLOCK_BYTES :], sums, block_index, 9, 2) == block_index


def test_a_good_block_in_the_wrong_place_fails() -> None:
    same = bytes(CHECK_BLOCK_BYTES)
    sums = block_checksums([same, same], 9, 2)
    assert sums[:SUM_BYTES] != sums[SUM_BYTES:]
    assert verify_blocks(same, sums, 0, 9, 2) is None
    assert verify_blocks(same, sums[SUM_BYTES:] + sums[:SUM_BYTES], 0, 9, 2) == 0
    assert verify_blocks(same, sums, 0, 9, 3) == 0
    assert verify_blocks(same, sums, 0, 10, 2) == 0


def test_a_shard_cut_short_fails_in_its_last_block() -> None:
    sums = block_checksums([PAYLOAD], 9, 2)
    assert verify_blocks(PAYLOAD[:-1], sums, 0, 9, 2) == 3


def test_a_range_outside_of_the_shard_is_our_bug() -> None:
    sums = block_checksums([PAYLOAD], 9, 2)
    with pytest.raises(AssertionError):
        verify_blocks(PAYLOAD, sums, 1, 9, 2)
    with pytest.raises(AssertionError):
        verify_blocks(PAYLOAD, sums, -1, 9, 2)
