"""Verified ranges of needles, and walking through a volume that a crash has torn."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ciaosfs.base.errors import ShardDamagedError
from ciaosfs.base.types import StripeKind, VolumeKind
from ciaosfs.codec.checksum import block_checksums
from ciaosfs.codec.needle import NeedleHead, NeedleKind, encode_head, head_bytes_for
from ciaosfs.drive.interface import DriveFile
from ciaosfs.drive.local import make_drive, open_drive
from ciaosfs.volume.reader import read_head, read_range, read_range_nowait
from ciaosfs.volume.scan import read_payload, scan_needles
from ciaosfs.volume.volume import Volume, create_volume, write_needle

STORE_ID = bytes(range(16))
VOLUME_ID = 99


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    make_drive(str(tmp_path / "drive"), store_id=STORE_ID, number=0)
    drive = open_drive(str(tmp_path / "drive"), STORE_ID, 0)
    return create_volume(drive, STORE_ID, VOLUME_ID, VolumeKind.LOG)


def put(volume: Volume, kind: NeedleKind, stripe_id: int, payload: bytes, shard_index: int = 1) -> NeedleHead:
    offset = volume.take(len(payload))
    head = NeedleHead(
        kind,
        STORE_ID,
        VOLUME_ID,
        offset,
        stripe_id,
        shard_index,
        1,
        2,
        StripeKind.FILE if kind is NeedleKind.SHARD else None,
        len(payload),
        len(payload),
        block_checksums([payload], stripe_id, shard_index),
    )
    write_needle(volume.file, offset, encode_head(head), [payload], len(payload))
    return head


def get_head(file: DriveFile, head: NeedleHead, **changes: int) -> NeedleHead:
    expected = {
        "offset": head.offset,
        "shard_bytes": head.shard_bytes,
        "stripe_id": head.stripe_id,
        "shard_index": head.shard_index,
        "volume_id": VOLUME_ID,
    } | changes
    return read_head(
        file,
        STORE_ID,
        expected["volume_id"],
        expected["offset"],
        expected["shard_bytes"],
        kind=NeedleKind.SHARD,
        stripe_id=expected["stripe_id"],
        shard_index=expected["shard_index"],
    )


@pytest.mark.parametrize("length", [1, 5000, 16_384, 16_385, 65_536, 100_000])
def test_ranges_are_the_payload_and_nothing_else(volume: Volume, length: int) -> None:
    payload = random.Random(length).randbytes(length)
    put(volume, NeedleKind.SHARD, 1, b"before")
    head = put(volume, NeedleKind.SHARD, 2, payload)
    put(volume, NeedleKind.SHARD, 3, b"behind")
    found = get_head(volume.file, head)
    assert found == head
    for start in {min(spot, length - 1) for spot in (0, 1, length // 2, 16_383, 16_384, length)}:
        for part in {1, min(20_000, length - start), length - start}:
            expected = payload[start : start + part]
            assert read_range(volume.file, found, start, part) == expected
            quick = read_range_nowait(volume.file, found, found.offset + found.payload_start, start, part)
            assert quick is None or quick == expected


def test_a_head_of_something_else_is_damage(volume: Volume) -> None:
    head = put(volume, NeedleKind.SHARD, 2, b"x" * 1000)
    other = put(volume, NeedleKind.SHARD, 3, b"x" * 1000)
    for changes in (
        {"stripe_id": 3},
        {"shard_index": 0},
        {"offset": other.offset},
        {"offset": head.offset + 64},
        {"shard_bytes": 999},
        {"volume_id": 98},
        {"offset": 1 << 30},
    ):
        with pytest.raises(ShardDamagedError):
            get_head(volume.file, head, **changes)
    commit = put(volume, NeedleKind.COMMIT, 4, b"x")
    with pytest.raises(ShardDamagedError):
        get_head(volume.file, commit)


def test_a_flipped_bit_fails_its_block_and_no_other(volume: Volume) -> None:
    payload = bytes(50_000)
    head = put(volume, NeedleKind.SHARD, 2, payload)
    at = head.offset + head.payload_start
    volume.file.write(at + 20_000, [b"\x01"])
    assert read_range(volume.file, head, 0, 16_384) == payload[:16_384]
    assert read_range(volume.file, head, 32_768, 100) == payload[:100]
    with pytest.raises(ShardDamagedError, match="Block 1 "):
        read_range(volume.file, head, 16_000, 1000)
    assert read_range_nowait(volume.file, head, at, 16_384, 10) is None


def test_a_scan_finds_every_needle_in_order_without_reading_payloads(volume: Volume) -> None:
    dice = random.Random(5)
    heads = [
        put(volume, dice.choice(list(NeedleKind)), number, dice.randbytes(dice.choice([0, 9, 5000, 200_000])))
        for number in range(1, 60)
    ]
    read = 0

    class Counting:
        def size(self) -> int:
            return volume.file.size()

        def read(self, offset: int, length: int) -> bytes | bytearray:
            nonlocal read
            read += length
            return volume.file.read(offset, length)

    counting: DriveFile = Counting()  # type: ignore[assignment]
    assert list(scan_needles(counting, STORE_ID, VOLUME_ID)) == heads
    assert read < volume.file.size() / 3
    for head in heads:
        assert len(read_payload(volume.file, head)) == head.shard_bytes


@pytest.mark.parametrize("seed", range(30))
def test_a_scan_goes_on_behind_what_a_crash_tore(volume: Volume, seed: int) -> None:
    """Heads lost anywhere, ends cut off: every needle whose head is whole and inside the file is found."""
    dice = random.Random(seed)
    heads = [
        put(volume, NeedleKind.COMMIT, number, dice.randbytes(dice.choice([0, 9, 500, 70_000])))
        for number in range(1, 40)
    ]
    lost = set(dice.sample(range(len(heads)), 12))
    for number in lost:
        start = heads[number].offset + dice.randrange(0, 128)
        volume.file.write(start, [dice.randbytes(dice.randrange(1, 300))])
    found = list(scan_needles(volume.file, STORE_ID, VOLUME_ID))
    # What was scribbled over may reach into the next head; what is whole must be found.
    whole = []
    for head in heads:
        raw = volume.file.read(head.offset, head_bytes_for(head.shard_bytes))
        if raw == encode_head(head):
            whole.append(head)
    assert found == whole
    assert len(found) >= len(heads) - 2 * len(lost)


def test_a_needle_of_another_volume_or_store_in_this_file_is_not_found(volume: Volume) -> None:
    put(volume, NeedleKind.COMMIT, 1, b"mine")
    raw = volume.file.read(4096, 4096)
    end = volume.tail
    volume.file.write(end, [raw])  # the same needle, in another place
    put(volume, NeedleKind.COMMIT, 2, b"also mine")
    assert [head.stripe_id for head in scan_needles(volume.file, STORE_ID, VOLUME_ID)] == [1, 2]
    assert list(scan_needles(volume.file, STORE_ID, VOLUME_ID + 1)) == []
    assert list(scan_needles(volume.file, bytes(16), VOLUME_ID)) == []


def test_an_empty_volume_has_no_needles(volume: Volume) -> None:
    assert list(scan_needles(volume.file, STORE_ID, VOLUME_ID)) == []
