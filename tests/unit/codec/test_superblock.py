"""The superblock: golden bytes, and every way in which it can be wrong."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from ciaosfs.base.errors import ShardDamagedError, StoreError
from ciaosfs.base.types import VolumeKind
from ciaosfs.codec.checksum import hash64
from ciaosfs.codec.superblock import Superblock, decode_superblock, encode_superblock

STORE = bytes(range(16))
DRIVE = bytes(range(16, 32))
BLOCK = Superblock(VolumeKind.LOG, STORE, 3, DRIVE, 2**62 + 1, 1_700_000_000_123_456_789)


def patched(at: int, fmt: str, value: int) -> bytes:
    """Return BLOCK's bytes with one field changed and the checksum made to fit."""
    raw = bytearray(encode_superblock(BLOCK))
    struct.pack_into(fmt, raw, at, value)
    struct.pack_into("<Q", raw, 4088, hash64(raw[:4088]))
    return bytes(raw)


def test_bytes_of_format_version_1_never_change() -> None:
    raw = encode_superblock(BLOCK)
    assert len(raw) == 4096
    assert raw[:64].hex() == GOLDEN_FIELDS
    assert raw[64:4088] == bytes(4024)
    assert raw[4088:].hex() == GOLDEN_SUM


GOLDEN_FIELDS = (
    "4349414f53564f4c0100020003000000000102030405060708090a0b0c0d0e0f"
    "101112131415161718191a1b1c1d1e1f010000000000004015cd853dfe9c9717"
)
GOLDEN_SUM = "29af86de70f36bf5"


@pytest.mark.parametrize("kind", VolumeKind)
def test_it_comes_back_equal(kind: VolumeKind) -> None:
    block = replace(BLOCK, kind=kind)
    raw = encode_superblock(block)
    found = decode_superblock(raw, store_id=STORE, drive_uuid=DRIVE, volume_id=2**62 + 1)
    assert found == decode_superblock(memoryview(raw + b"a needle")) == block


@pytest.mark.parametrize("at", [0, 7, 8, 10, 11, 12, 16, 31, 32, 48, 56, 63, 64, 2000, 4087, 4088, 4095])
def test_a_flipped_bit_anywhere_is_damage(at: int) -> None:
    for bit in range(8):
        raw = bytearray(encode_superblock(BLOCK))
        raw[at] ^= 1 << bit
        with pytest.raises(ShardDamagedError):
            decode_superblock(raw)


@pytest.mark.parametrize("length", [0, 1, 8, 64, 4095])
def test_a_torn_one_is_damage(length: int) -> None:
    with pytest.raises(ShardDamagedError):
        decode_superblock(encode_superblock(BLOCK)[:length])


def test_zeros_are_damage() -> None:
    with pytest.raises(ShardDamagedError):
        decode_superblock(bytes(4096))


def test_another_volume_store_or_drive_is_damage() -> None:
    raw = encode_superblock(BLOCK)
    with pytest.raises(ShardDamagedError, match="belongs to store"):
        decode_superblock(raw, store_id=DRIVE)
    with pytest.raises(ShardDamagedError, match="belongs to drive"):
        decode_superblock(raw, drive_uuid=STORE)
    with pytest.raises(ShardDamagedError, match="holds volume"):
        decode_superblock(raw, volume_id=1)


def test_a_newer_version_is_no_damage_but_one_sentence() -> None:
    with pytest.raises(StoreError, match=r"^Volume .* version 2, newer .*\.$"):
        decode_superblock(patched(8, "<H", 2))


@pytest.mark.parametrize(("at", "fmt", "value"), [(8, "<H", 0), (10, "B", 0), (10, "B", 3)])
def test_a_version_or_kind_that_never_was_is_damage(at: int, fmt: str, value: int) -> None:
    with pytest.raises(ShardDamagedError):
        decode_superblock(patched(at, fmt, value))


def test_ids_of_the_wrong_length_are_our_bug() -> None:
    with pytest.raises(AssertionError):
        encode_superblock(replace(BLOCK, store_id=b"short"))
