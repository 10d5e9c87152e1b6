"""The needle's head: golden bytes, alignment, and every way in which it can be wrong."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciaosfs.base.errors import ShardDamagedError, StoreError
from ciaosfs.base.limits import (
    CHECK_BLOCK_BYTES,
    NEEDLE_ALIGN,
    NEEDLE_ALIGN_LARGE,
    NEEDLE_LARGE_BYTES,
    NEEDLE_PAYLOAD_BYTES_MAX,
    SHARDS_MAX,
)
from ciaosfs.base.types import StripeKind
from ciaosfs.codec.checksum import block_checksums, block_count, hash64
from ciaosfs.codec.needle import (
    FIXED_HEAD_BYTES,
    NeedleHead,
    NeedleKind,
    decode_head,
    encode_head,
    head_bytes_for,
    head_bytes_needed,
    needle_align_for,
    needle_bytes_for,
)

STORE = bytes(range(16))
VOLUME = 0x1122334455667788
PAYLOAD = bytes(range(256)) * 100
HEAD = NeedleHead(
    kind=NeedleKind.SHARD,
    store_id=STORE,
    volume_id=VOLUME,
    offset=4096 + 64,
    stripe_id=2**62 + 7,
    shard_index=4,
    data_count=4,
    parity_count=2,
    stripe_kind=StripeKind.FILE,
    payload_bytes=4 * len(PAYLOAD) - 3,
    shard_bytes=len(PAYLOAD),
    sums=block_checksums([PAYLOAD], 2**62 + 7, 4),
)


def decode(raw: bytes | bytearray | memoryview, **expected: Any) -> NeedleHead:
    place: dict[str, Any] = {"store_id": STORE, "volume_id": VOLUME, "offset": HEAD.offset}
    return decode_head(raw, **(place | expected))


def patched(*fields: tuple[int, str, int]) -> bytes:
    """Return HEAD's bytes with fields (at, format, value) changed and the checksum made to fit."""
    raw = bytearray(encode_head(HEAD))
    for at, fmt, value in fields:
        struct.pack_into(fmt, raw, at, value)
    struct.pack_into("<Q", raw, 120, hash64(raw[:120]))
    return bytes(raw)


def of_length(shard_bytes: int) -> NeedleHead:
    sums = bytes(8 * block_count(shard_bytes))
    return replace(HEAD, shard_bytes=shard_bytes, payload_bytes=shard_bytes, sums=sums)


def test_bytes_of_format_version_1_never_change() -> None:
    raw = encode_head(HEAD)
    assert raw[:FIXED_HEAD_BYTES].hex() == GOLDEN_FIXED
    assert raw[FIXED_HEAD_BYTES:] == HEAD.sums


GOLDEN_FIXED = (
    "4349414f534e444c0100010190000000000102030405060708090a0b0c0d0e0f"
    "8877665544332211401000000000000007000000000000400400040002000000"
    "fd8f01000000000000640000000000006f3abefefb77fe230000000000000000"
    "000000000000000000000000000000000000000000000000ac9b63ec9da01a33"
)


@pytest.mark.parametrize("kind", NeedleKind)
@pytest.mark.parametrize(
    "shard_bytes",
    [0, 1, CHECK_BLOCK_BYTES, NEEDLE_LARGE_BYTES - 1, NEEDLE_LARGE_BYTES, 1 << 20, NEEDLE_PAYLOAD_BYTES_MAX],
)
def test_it_comes_back_equal(kind: NeedleKind, shard_bytes: int) -> None:
    head = replace(
        of_length(shard_bytes), kind=kind, stripe_kind=StripeKind.IMAGE if kind is NeedleKind.SHARD else None
    )
    raw = encode_head(head)
    assert len(raw) == head.payload_start
    found = decode(raw, kind=kind, stripe_id=HEAD.stripe_id, shard_index=HEAD.shard_index)
    assert found == decode(memoryview(raw + b"payload")) == head
    assert type(found.kind) is NeedleKind
    needed = head_bytes_needed(raw[:FIXED_HEAD_BYTES])
    assert needed <= head.payload_start
    assert decode(raw[:needed]) == head


@given(st.integers(0, NEEDLE_PAYLOAD_BYTES_MAX))
def test_sizes_keep_their_alignment(shard_bytes: int) -> None:
    start, whole = head_bytes_for(shard_bytes), needle_bytes_for(shard_bytes)
    align = needle_align_for(shard_bytes)
    large = shard_bytes >= NEEDLE_LARGE_BYTES
    assert align == (NEEDLE_ALIGN_LARGE if large else NEEDLE_ALIGN)
    assert start >= FIXED_HEAD_BYTES + 8 * block_count(shard_bytes)
    assert whole % align == 0
    assert start + shard_bytes <= whole < start + shard_bytes + align
    if large:
        assert start % NEEDLE_ALIGN_LARGE == 0  # so the payload is on a page if the needle is


def test_a_flipped_bit_anywhere_before_the_payload_of_a_small_needle_is_damage() -> None:
    raw = encode_head(HEAD)
    for at in range(len(raw)):
        for bit in range(8):
            flipped = bytearray(raw)
            flipped[at] ^= 1 << bit
            with pytest.raises(ShardDamagedError):
                decode(flipped)


def test_a_head_torn_anywhere_is_damage() -> None:
    raw = encode_head(HEAD)
    for length in range(len(raw)):
        with pytest.raises(ShardDamagedError):
            decode(raw[:length])
    for length in range(FIXED_HEAD_BYTES):
        with pytest.raises(ShardDamagedError):
            head_bytes_needed(raw[:length])


def test_no_needle_is_damage() -> None:
    for nothing in (bytes(4096), b"\xff" * 4096, b"CIAOSVOL" + bytes(4088), PAYLOAD):
        with pytest.raises(ShardDamagedError, match="no needle"):
            decode(nothing)


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"store_id": bytes(16)}, "belongs to store"),
        ({"volume_id": VOLUME + 1}, "was written for"),
        ({"offset": 4096}, "was written for"),
        ({"kind": NeedleKind.COMMIT}, "is of kind 1, not 2"),
        ({"stripe_id": 5}, "is of stripe"),
        ({"shard_index": 0}, "is shard 4, not 0"),
    ],
)
def test_a_good_needle_in_the_wrong_place_is_damage(expected: dict[str, Any], words: str) -> None:
    with pytest.raises(ShardDamagedError, match=words):
        decode(encode_head(HEAD), **expected)


def test_a_newer_version_is_no_damage_but_one_sentence() -> None:
    for call in (decode, head_bytes_needed):
        with pytest.raises(StoreError, match=r"^A needle .* version 2, newer .*\.$"):
            call(patched((8, "<H", 2)))


KIND, STRIPE_KIND, PAYLOAD_START, OFFSET = 10, 11, 12, 40
SHARD_INDEX, DATA_COUNT, PARITY_COUNT, PAYLOAD_BYTES, SHARD_BYTES = 56, 58, 60, 64, 72


@pytest.mark.parametrize(
    "fields",
    [
        [(8, "<H", 0)],
        [(KIND, "B", 0)],
        [(KIND, "B", 4)],
        [(STRIPE_KIND, "B", 0)],
        [(STRIPE_KIND, "B", 3)],
        [(KIND, "B", NeedleKind.COMMIT)],
        [(DATA_COUNT, "<H", 0)],
        [(SHARD_INDEX, "<H", 6)],
        [(PARITY_COUNT, "<H", SHARDS_MAX - 3)],
        [(PAYLOAD_BYTES, "<Q", 4 * len(PAYLOAD) + 1)],
        [(PAYLOAD_START, "<I", head_bytes_for(len(PAYLOAD)) + 64)],
        [(PAYLOAD_START, "<I", 0)],
        [(SHARD_BYTES, "<Q", 0), (PAYLOAD_START, "<I", head_bytes_for(len(PAYLOAD)))],
        [
            (SHARD_BYTES, "<Q", NEEDLE_PAYLOAD_BYTES_MAX + 1),
            (PAYLOAD_START, "<I", head_bytes_for(NEEDLE_PAYLOAD_BYTES_MAX + 1)),
        ],
        [(SHARD_BYTES, "<Q", 2**64 - 1), (PAYLOAD_BYTES, "<Q", 2**64 - 1), (PAYLOAD_START, "<I", 2**32 - 1)],
        [(OFFSET, "<Q", HEAD.offset + 8)],
    ],
)
def test_fields_that_contradict_each_other_are_damage_even_under_a_good_checksum(
    fields: list[tuple[int, str, int]],
) -> None:
    raw = patched(*fields)
    with pytest.raises(ShardDamagedError, match="contradicts itself"):
        decode(raw)
    with pytest.raises(ShardDamagedError, match="contradicts itself"):
        head_bytes_needed(raw)


def test_a_length_is_not_used_before_its_checksum_was() -> None:
    raw = bytearray(encode_head(HEAD))
    struct.pack_into("<Q", raw, SHARD_BYTES, len(PAYLOAD) - 1)  # as plausible as can be
    with pytest.raises(ShardDamagedError, match="checksum of its head"):
        head_bytes_needed(raw)


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": 100},
        {"store_id": b"short"},
        {"stripe_kind": None},
        {"kind": NeedleKind.COMMIT},
        {"shard_index": 6},
        {"shard_index": -1},
        {"data_count": 0},
        {"parity_count": SHARDS_MAX},
        {"payload_bytes": 4 * len(PAYLOAD) + 1},
        {"shard_bytes": NEEDLE_PAYLOAD_BYTES_MAX + 1},
        {"sums": b""},
    ],
)
def test_what_would_be_refused_is_never_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        encode_head(replace(HEAD, **wrong))
