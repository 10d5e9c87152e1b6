"""A chunk store over real local drives in a temporary directory, and ways to harm what it wrote."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ciaosfs.base.clock import IdSource
from ciaosfs.base.config import DriveConfig
from ciaosfs.base.types import ShardPlace, StripeRecord
from ciaosfs.codec.needle import head_bytes_for, needle_bytes_for
from ciaosfs.drive.local import make_drive, volume_name
from ciaosfs.drive.workers import Workers
from ciaosfs.stripe.store import ChunkStore
from ciaosfs.volume.driveset import DriveOpener, DriveSet
from tests.support.faulty_drive import FaultyOpener

STORE_ID = bytes(range(16))

_generator = random.Random(20261120)


def some_bytes(length: int) -> bytes:
    """Bytes that differ from call to call and do not compress; the same in every run."""
    return _generator.randbytes(length)


@dataclass
class Bench:
    """The drives of one store, and what its stores told."""

    root: Path
    data_count: int
    parity_count: int
    drives: list[DriveConfig]
    opener: FaultyOpener = field(default_factory=FaultyOpener)
    damage: list[tuple[int, int, str]] = field(default_factory=list)
    volumes: dict[int, tuple[int, int, str]] = field(default_factory=dict)
    ids: IdSource = field(default_factory=lambda: IdSource(0))

    @classmethod
    def make(cls, root: Path, data_count: int, parity_count: int, spare: int = 0) -> Bench:
        drives = []
        for number in range(data_count + parity_count + spare):
            path = root / f"drive-{number}"
            identity = make_drive(str(path), store_id=STORE_ID, number=number)
            drives.append(DriveConfig(number, identity.drive_uuid, path))
        return cls(root, data_count, parity_count, drives)

    @asynccontextmanager
    async def store(self, opener: DriveOpener | None = None) -> AsyncIterator[ChunkStore]:
        """A running store over the drives as they are."""
        async with Workers() as workers:
            drives = DriveSet.open(STORE_ID, self.drives, opener or self.opener)
            async with ChunkStore(
                drives, STORE_ID, self.data_count, self.parity_count, self.ids, workers
            ) as chunks:
                chunks.on_damage = lambda stripe, shard, reason: self.damage.append((stripe, shard, reason))
                chunks.on_volume = lambda volume, number, kind, state: self.volumes.update(
                    {volume: (number, kind, state)}
                )
                yield chunks

    def path_of(self, volume_id: int) -> Path:
        """The file of a volume, wherever it is."""
        for drive in self.drives:
            path = drive.path / "volumes" / volume_name(volume_id)
            if path.exists():
                return path
        raise AssertionError(f"volume {volume_id:016x} is on no drive")

    def drive_of(self, place: ShardPlace) -> int:
        return next(
            drive.number
            for drive in self.drives
            if (drive.path / "volumes" / volume_name(place.volume_id)).exists()
        )

    def drives_of(self, record: StripeRecord) -> list[int]:
        return [self.drive_of(place) for place in record.places]

    def hide(self, number: int) -> None:
        """Take a drive away, as by unplugging or renaming."""
        path = self.drives[number].path
        path.rename(path.with_suffix(".away"))

    def bring_back(self, number: int) -> None:
        path = self.drives[number].path
        path.with_suffix(".away").rename(path)


# Harm: each makes one shard of a stripe unusable on its drive, or says something false.


def lose_shard(bench: Bench, record: StripeRecord, place: ShardPlace) -> None:
    """The whole volume is gone."""
    bench.path_of(place.volume_id).unlink()


def truncate_shard(bench: Bench, record: StripeRecord, place: ShardPlace) -> None:
    """The volume ends in the middle of the shard."""
    end = place.offset + head_bytes_for(record.shard_bytes) + record.shard_bytes // 2
    os.truncate(bench.path_of(place.volume_id), end)


def zero_shard(bench: Bench, record: StripeRecord, place: ShardPlace) -> None:
    """The write of the needle never arrived."""
    overwrite(bench, place, 0, bytes(needle_bytes_for(record.shard_bytes)))


def flip_in_payload(bench: Bench, record: StripeRecord, place: ShardPlace) -> None:
    """One bit in every block of the payload is wrong."""
    start = head_bytes_for(record.shard_bytes)
    for at in range(0, record.shard_bytes, 4096):
        flip(bench, place, start + at)


def flip_in_head(bench: Bench, record: StripeRecord, place: ShardPlace) -> None:
    flip(bench, place, 40)


def copy_from_other(bench: Bench, record: StripeRecord, place: ShardPlace) -> None:
    """The shard of another index, itself whole, lies where this one should (the stripe's own neighbour)."""
    other = next(p for p in reversed(record.places) if p.shard_index != place.shard_index)
    length = needle_bytes_for(record.shard_bytes)
    with bench.path_of(other.volume_id).open("rb") as file:
        file.seek(other.offset)
        overwrite(bench, place, 0, file.read(length))


HARMS = [lose_shard, truncate_shard, zero_shard, flip_in_payload, flip_in_head, copy_from_other]


def overwrite(bench: Bench, place: ShardPlace, at: int, data: bytes) -> None:
    """Put bytes `at` bytes after the start of a needle."""
    descriptor = os.open(bench.path_of(place.volume_id), os.O_WRONLY)
    try:
        os.pwrite(descriptor, data, place.offset + at)
    finally:
        os.close(descriptor)


def flip(bench: Bench, place: ShardPlace, at: int) -> None:
    """Flip one bit `at` bytes after the start of a needle."""
    descriptor = os.open(bench.path_of(place.volume_id), os.O_RDWR)
    try:
        (old,) = os.pread(descriptor, 1, place.offset + at)
        os.pwrite(descriptor, bytes([old ^ 0x04]), place.offset + at)
    finally:
        os.close(descriptor)


def subsets(count: int, size: int, at_most: int = 40) -> Sequence[tuple[int, ...]]:
    """All sets of `size` out of `count`, or a fixed sample of them where they are very many."""
    every = list(itertools.combinations(range(count), size))
    return every if len(every) <= at_most else random.Random(7).sample(every, at_most)
