"""Promise 3, exhausted: every set of m shards of a stripe, harmed in every way, reads as the same bytes; one more is EIO.

One stripe of each geometry in use, small, on real drives. Its shards are harmed in place under an open store, set after
set, and made whole again. Each set meets one of the kinds of harm, or a mixture, turning through them all; with
CIAOSFS_SOAK set each set meets every kind, and no set is left out.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base import limits
from ciaosfs.base.errors import StripeLostError
from ciaosfs.base.types import ShardPlace, StripeRecord
from ciaosfs.codec.needle import head_bytes_for, needle_bytes_for
from ciaosfs.drive.local import open_drive
from ciaosfs.stripe.store import ChunkStore
from tests.support.chunks import Bench, some_bytes

GEOMETRIES = [
    (1, 1),
    (1, 2),
    (1, 3),
    (2, 1),
    (2, 2),
    (3, 2),
    (4, 2),
    (4, 3),
    (6, 3),
    (8, 2),
    (8, 3),
    (8, 4),
    (10, 4),
]
IS_FULL = bool(os.environ.get("CIAOSFS_SOAK"))
BEYOND_SETS_MAX = 250
"""Sets of m+1 looked at where it is not the full product."""


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@dataclass
class Specimen:
    """A stripe, its payload, and the bytes of each of its volumes, to be put back."""

    bench: Bench
    chunks: ChunkStore
    record: StripeRecord
    payload: bytes
    other: StripeRecord
    paths: dict[int, Path]
    whole: dict[int, bytes]

    def path(self, place: ShardPlace) -> Path:
        return self.paths[place.volume_id]

    def restore(self, places: Sequence[ShardPlace]) -> None:
        for place in places:
            with self.path(place).open("r+b" if self.path(place).exists() else "xb") as file:
                file.write(self.whole[place.volume_id])
                file.truncate()
            if self.chunks.files.get(place.volume_id) is None:
                number, _, _ = self.bench.volumes[place.volume_id]
                drive = self.chunks._drives.slots[number].drive
                assert drive is not None
                self.chunks.files.add(place.volume_id, drive)
        self.chunks._shards.forget(self.record)


# Each makes one shard say nothing, or something else.


def lost(it: Specimen, place: ShardPlace) -> None:
    """Its volume is gone from the drive."""
    it.path(place).unlink()
    it.chunks.files.forget(place.volume_id)


def truncated(it: Specimen, place: ShardPlace) -> None:
    shard_bytes = it.record.shard_bytes
    os.truncate(it.path(place), place.offset + head_bytes_for(shard_bytes) + shard_bytes // 2)


def flipped(it: Specimen, place: ShardPlace) -> None:
    """One bit of each block, so that every range meets one."""
    start = place.offset + needle_bytes_for(it.record.shard_bytes) - it.record.shard_bytes
    with it.path(place).open("r+b") as file:
        for at in range(start, start + it.record.shard_bytes, 1024):
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0x20]))


def flipped_in_the_head(it: Specimen, place: ShardPlace) -> None:
    byte = it.whole[place.volume_id][place.offset + 40]
    write(it, place, 40, bytes([byte ^ 1]))


def swapped(it: Specimen, place: ShardPlace) -> None:
    """The whole needle of the same shard of another stripe, as a misdirected write leaves it."""
    for other in it.other.places:
        if other.volume_id == place.volume_id:
            data = it.whole[place.volume_id]
            write(it, place, 0, data[other.offset : other.offset + needle_bytes_for(it.other.shard_bytes)])
            return
    raise AssertionError("the other stripe has a shard in the same volume")


def of_its_neighbour(it: Specimen, place: ShardPlace) -> None:
    """The whole needle of another shard of the same stripe."""
    other = next(p for p in it.record.places if p.shard_index != place.shard_index)
    data = it.whole[other.volume_id][other.offset : other.offset + needle_bytes_for(it.record.shard_bytes)]
    write(it, place, 0, data)


def of_an_older_version(it: Specimen, place: ShardPlace) -> None:
    """The drive came back as it was before the stripe was written: its volume ends where this needle begins."""
    os.truncate(it.path(place), place.offset)


def write(it: Specimen, place: ShardPlace, at: int, data: bytes) -> None:
    with it.path(place).open("r+b") as file:
        file.seek(place.offset + at)
        file.write(data)


Harm = Callable[[Specimen, ShardPlace], None]
HARMS: list[Harm] = [
    lost,
    truncated,
    flipped,
    flipped_in_the_head,
    swapped,
    of_its_neighbour,
    of_an_older_version,
]


@asynccontextmanager
async def specimen(
    tmp_path: Path, data_count: int, parity_count: int, *, is_hot: bool
) -> AsyncIterator[Specimen]:
    """Two stripes of one length, one after the other in the same volumes; the second one is to be harmed."""
    bench = Bench.make(tmp_path, data_count, parity_count)
    length = 5_000 if is_hot else limits.HOT_PAYLOAD_BYTES_MAX + 8_001
    async with bench.store(open_drive) as chunks:
        records = []
        payload = b""
        for _ in range(1 + data_count + parity_count):  # the turn of the drives comes round
            payload = some_bytes(length)
            records.append(await chunks.write_stripe([payload]))
        record = records.pop()
        where = {place.volume_id: place.shard_index for place in record.places}
        other = next(r for r in records if {p.volume_id: p.shard_index for p in r.places} == where or is_hot)
        await chunks.sync()
        paths = {place.volume_id: bench.path_of(place.volume_id) for place in record.places}
        whole = {volume_id: path.read_bytes() for volume_id, path in paths.items()}
        yield Specimen(bench, chunks, record, payload, other, paths, whole)


def harmed(it: Specimen, sets: Sequence[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], str]]:
    """Harm each set in turn, yield while it is harmed, and make it whole again."""
    turn = itertools.count()
    for indexes in sets:
        kinds: list[list[Harm]] = [[harm] * len(indexes) for harm in HARMS]
        kinds.append([HARMS[(next(turn) + at) % len(HARMS)] for at in range(len(indexes))])
        if not IS_FULL:
            kinds = [kinds[next(turn) % len(kinds)]]
        for harms in kinds:
            places = [it.record.places[index] for index in indexes]
            if of_its_neighbour in harms and it.record.data_count == 1 and len(indexes) > 1:
                harms = [swapped if harm is of_its_neighbour else harm for harm in harms]
            for harm, place in zip(harms, places, strict=True):
                harm(it, place)
            it.chunks._shards.forget(it.record)
            yield indexes, " ".join(f"{i}:{h.__name__}" for i, h in zip(indexes, harms, strict=True))
            it.restore(places)


def sample(count: int, size: int) -> Sequence[tuple[int, ...]]:
    every = list(itertools.combinations(range(count), size))
    if IS_FULL or len(every) <= BEYOND_SETS_MAX:
        return every
    return random.Random(7).sample(every, BEYOND_SETS_MAX)


KINDS = [(k, m, False) for k, m in GEOMETRIES] + [(4, m, True) for m in sorted({m for _, m in GEOMETRIES})]


@pytest.mark.parametrize(("data_count", "parity_count", "is_hot"), KINDS)
@trio_test
async def test_every_set_of_m_shards_reads_as_the_same_bytes(
    tmp_path: Path, data_count: int, parity_count: int, is_hot: bool
) -> None:
    async with specimen(tmp_path, data_count, parity_count, is_hot=is_hot) as it:
        count = len(it.record.places)
        assert count == (1 if is_hot else data_count) + parity_count
        length = len(it.payload)
        tried = 0
        for indexes, what in harmed(it, list(itertools.combinations(range(count), parity_count))):
            found = bytes(await it.chunks.read(it.record, 0, length))
            assert found == it.payload, what
            start = indexes[0] * it.record.shard_bytes % length
            part = min(700, length - start)
            assert bytes(await it.chunks.read(it.record, start, part)) == it.payload[start : start + part], (
                what
            )
            tried += 1
        assert tried >= len(list(itertools.combinations(range(count), parity_count)))


@pytest.mark.parametrize(("data_count", "parity_count", "is_hot"), KINDS)
@trio_test
async def test_every_set_of_one_more_is_an_error_and_never_other_bytes(
    tmp_path: Path, data_count: int, parity_count: int, is_hot: bool
) -> None:
    async with specimen(tmp_path, data_count, parity_count, is_hot=is_hot) as it:
        length, shard_bytes = len(it.payload), it.record.shard_bytes
        for indexes, what in harmed(it, sample(len(it.record.places), parity_count + 1)):
            lost_data = [index for index in indexes if index < it.record.data_count]
            for index in lost_data:
                start = index * shard_bytes
                whole = min(shard_bytes, length - start)
                for begin, part in ((start + whole - 1, 1), (start, whole)):
                    with pytest.raises(StripeLostError):
                        await it.chunks.read(it.record, begin, part)
                    assert it.chunks.read_nowait(it.record, begin, part) is None, what
            if lost_data:
                with pytest.raises(StripeLostError):
                    await it.chunks.read(it.record, 0, length)
            for index in set(range(it.record.data_count)) - set(indexes):
                start = index * shard_bytes
                part = min(shard_bytes, length - start)
                found = bytes(await it.chunks.read(it.record, start, part))
                assert found == it.payload[start : start + part], what


@trio_test
async def test_the_harness_harms(tmp_path: Path) -> None:
    """Every kind of harm makes the shard it is done to unreadable by itself, and is undone again."""
    async with specimen(tmp_path, 2, 1, is_hot=False) as it:
        for harm in HARMS:
            for place in it.record.places:
                assert await it.chunks.damaged_shards(it.record) == []
                harm(it, place)
                it.chunks._shards.forget(it.record)
                expected = [] if harm is lost else [place.shard_index]
                assert await it.chunks.damaged_shards(it.record) == expected, harm.__name__
                it.restore([place])
