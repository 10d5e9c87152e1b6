"""Harm done to the needles of a store, and what is left of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ciaosfs.base import limits
from ciaosfs.base.types import ShardPlace, StripeRecord
from ciaosfs.codec.needle import head_bytes_for, needle_bytes_for
from ciaosfs.drive.local import volume_name
from ciaosfs.fs.filesystem import FileSystem
from tests.support.builders import Store

Harm = Callable[[Store, StripeRecord, ShardPlace], None]


def volume_path(store: Store, volume_id: int) -> Path:
    """The file of a volume, wherever it is, also on a drive that is hidden."""
    for drive in store.config.drives:
        for directory in (drive.path, drive.path.with_name(drive.path.name + ".away")):
            path = directory / "volumes" / volume_name(volume_id)
            if path.exists():
                return path
    raise AssertionError(f"volume {volume_id:016x} is on no drive")


def drive_of(store: Store, place: ShardPlace) -> int:
    name = volume_name(place.volume_id)
    return next(drive.number for drive in store.config.drives if (drive.path / "volumes" / name).exists())


def needle_of(store: Store, record: StripeRecord, place: ShardPlace) -> bytes:
    """The needle's bytes as they are on the drive."""
    with volume_path(store, place.volume_id).open("rb") as file:
        file.seek(place.offset)
        return file.read(needle_bytes_for(record.shard_bytes))


def _write(store: Store, place: ShardPlace, at: int, data: bytes) -> None:
    descriptor = os.open(volume_path(store, place.volume_id), os.O_WRONLY)
    try:
        os.pwrite(descriptor, data, place.offset + at)
    finally:
        os.close(descriptor)


def flip(store: Store, record: StripeRecord, place: ShardPlace, at: int | None = None) -> None:
    """One bit is wrong, by default in the middle of the payload."""
    if at is None:
        at = head_bytes_for(record.shard_bytes) + record.shard_bytes // 2
    old = needle_of(store, record, place)[at]
    _write(store, place, at, bytes([old ^ 0x20]))


def flip_head(store: Store, record: StripeRecord, place: ShardPlace) -> None:
    flip(store, record, place, 33)


def zero(store: Store, record: StripeRecord, place: ShardPlace) -> None:
    """The write never arrived."""
    _write(store, place, 0, bytes(needle_bytes_for(record.shard_bytes)))


def tear(store: Store, record: StripeRecord, place: ShardPlace, block: int) -> None:
    """The write of one block of the payload never arrived."""
    start = head_bytes_for(record.shard_bytes) + block * limits.CHECK_BLOCK_BYTES
    _write(store, place, start, bytes(limits.CHECK_BLOCK_BYTES))


def swap(store: Store, record: StripeRecord, place: ShardPlace) -> None:
    """The needle of another shard of the stripe, itself whole, lies in this one's place."""
    other = next(p for p in record.places if p.shard_index != place.shard_index)
    _write(store, place, 0, needle_of(store, record, other))


def lose_volume(store: Store, record: StripeRecord, place: ShardPlace) -> None:
    """The file of the volume is gone."""
    volume_path(store, place.volume_id).unlink()


def cut_off(store: Store, record: StripeRecord, place: ShardPlace) -> None:
    """The volume ends in the middle of the shard."""
    os.truncate(volume_path(store, place.volume_id), place.offset + needle_bytes_for(record.shard_bytes) // 2)


HARMS: list[Harm] = [flip, flip_head, zero, swap, lose_volume, cut_off]


def records(filesystem: FileSystem) -> list[StripeRecord]:
    """Every stripe, oldest first."""
    stripes = filesystem.parts.meta.stripes
    found = [stripes.load(stripe_id) for stripe_id in stripes.ids_after(0)]
    return [record for record in found if record is not None]


async def bad_shards(filesystem: FileSystem) -> list[tuple[int, int]]:
    """Every shard that is missing or not whole: (stripe, index)."""
    bad = []
    for record in records(filesystem):
        found = await filesystem.parts.chunks.verify([(record, place) for place in record.places])
        whole = {
            p.shard_index for p, f in zip(record.places, found, strict=True) if f.condition.value == "whole"
        }
        bad += [
            (record.stripe_id, index)
            for index in range(record.data_count + record.parity_count)
            if index not in whole
        ]
    return bad
