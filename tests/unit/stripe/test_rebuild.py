"""Lost shards come back on other drives, equal to what they were; nothing damaged goes into them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base import limits
from ciaosfs.base.errors import DriveGoneError, NoSpaceError, StripeLostError
from ciaosfs.base.types import Buffer, StripeRecord
from ciaosfs.codec.needle import head_bytes_for
from ciaosfs.stripe.layout import place_of
from ciaosfs.stripe.rebuild import Rebuilder
from tests.support.chunks import HARMS, Bench, flip_in_payload, some_bytes, subsets, zero_shard
from tests.support.small_drives import SmallDrives

SMALL = [(1, 1), (1, 2), (2, 1), (3, 2), (4, 2)]
WIDE = [(6, 3), (8, 4), (10, 4)]
CODED_BYTES = limits.HOT_PAYLOAD_BYTES_MAX + 70_001
HOT_BYTES = 5_000


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def payload_of(bench: Bench, record: StripeRecord, shard_index: int) -> bytes:
    """The bytes of a shard as they lie on its drive, unverified."""
    place = place_of(record, shard_index)
    assert place is not None
    with bench.path_of(place.volume_id).open("rb") as file:
        file.seek(place.offset + head_bytes_for(record.shard_bytes))
        return file.read(record.shard_bytes)


def without(record: StripeRecord, indexes: Collection[int]) -> StripeRecord:
    """The record once these shards are forgotten."""
    return replace(record, places=tuple(p for p in record.places if p.shard_index not in indexes))


@pytest.mark.parametrize(("data_count", "parity_count"), SMALL + WIDE)
@pytest.mark.parametrize("length", [HOT_BYTES, CODED_BYTES])
@trio_test
async def test_every_set_of_m_shards_comes_back_as_it_was(
    tmp_path: Path, data_count: int, parity_count: int, length: int
) -> None:
    """All sets of small codes, a sample of wide ones; on as few drives as there are shards."""
    bench = Bench.make(tmp_path, data_count, parity_count)
    payload = some_bytes(length)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
        total = record.data_count + record.parity_count
        expected = [payload_of(bench, record, index) for index in range(total)]
        for lost in subsets(total, parity_count, at_most=15):
            rebuilt = await chunks.rebuild(without(record, lost), lost)
            assert rebuilt.missing_count == 0
            drives = bench.drives_of(rebuilt)
            assert len(set(drives)) == len(drives), "two shards of a stripe on one drive"
            assert [payload_of(bench, rebuilt, index) for index in range(total)] == expected
            only = without(rebuilt, [index for index in range(total) if index not in lost])
            if parity_count >= record.data_count:
                assert bytes(await chunks.read(only, 0, length)) == payload
            assert await chunks.damaged_shards(rebuilt) == []
            await chunks.sync()
            record = rebuilt
    assert bench.damage == []


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
@trio_test
async def test_a_damaged_shard_is_decoded_and_a_damaged_source_is_passed_over(
    tmp_path: Path, harm: object
) -> None:
    assert callable(harm)
    bench = Bench.make(tmp_path, 4, 2)
    payload = some_bytes(CODED_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
    expected = [payload_of(bench, record, index) for index in range(6)]
    harm(bench, record, record.places[1])
    flip_in_payload(bench, record, record.places[3])
    async with bench.store() as chunks:
        rebuilt = await chunks.rebuild(record, [1])
        assert payload_of(bench, rebuilt, 1) == expected[1]
        assert rebuilt.places[3] == record.places[3], "a shard that nobody asked for was moved"
        assert (record.stripe_id, 3) in {(stripe, shard) for stripe, shard, _ in bench.damage}
        whole = await chunks.rebuild(rebuilt, [3])
        assert await chunks.damaged_shards(whole) == []
        assert bytes(await chunks.read(whole, 0, len(payload))) == payload


@trio_test
async def test_a_drive_that_comes_back_meanwhile_with_a_shard_of_the_stripe_gets_no_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 284359225739 of the simulator: with both on one drive, losing m others loses the stripe."""
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
    drives = bench.drives_of(record)
    (spare,) = {0, 1, 2, 3} - set(drives)
    bench.hide(drives[2])
    really_gather = Rebuilder._gather

    async def gather(self: Rebuilder, record: StripeRecord, indexes: Sequence[int]) -> dict[int, Buffer]:
        good = await really_gather(self, record, indexes)
        bench.bring_back(drives[2])
        bench.hide(spare)
        await chunks.refresh_drives()
        return good

    monkeypatch.setattr(Rebuilder, "_gather", gather)
    async with bench.store() as chunks:
        with pytest.raises(NoSpaceError):
            await chunks.rebuild(record, [0], avoid=[drives[0]])


@trio_test
async def test_with_more_than_m_damaged_nothing_is_written(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2, spare=1)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
    for index in (0, 2, 5):
        zero_shard(bench, record, record.places[index])
    async with bench.store() as chunks:
        with pytest.raises(StripeLostError, match="3 can be read"):
            await chunks.rebuild(record, [0])
        assert chunks.statistics().volumes_dirty == 0


@trio_test
async def test_a_drive_that_is_away_is_not_a_lost_stripe(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2, spare=1)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
    zero_shard(bench, record, record.places[0])
    zero_shard(bench, record, record.places[1])
    bench.hide(bench.drive_of(record.places[2]))
    async with bench.store() as chunks:
        with pytest.raises(DriveGoneError, match="absent"):
            await chunks.rebuild(record, [0])


@trio_test
async def test_shards_of_absent_drives_are_rebuilt_on_spare_ones(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2, spare=2)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload := some_bytes(CODED_BYTES)])
        spare = set(range(8)) - set(bench.drives_of(record))
    gone = [bench.drive_of(record.places[index]) for index in (0, 4)]
    for number in gone:
        bench.hide(number)
    async with bench.store() as chunks:
        assert chunks.can_place(record, [0, 4])
        rebuilt = await chunks.rebuild(record, [0, 4])
        assert {bench.drive_of(rebuilt.places[index]) for index in (0, 4)} == spare
        assert not chunks.can_place(rebuilt, [])
        assert bytes(await chunks.read(rebuilt, 0, len(payload))) == payload


@trio_test
async def test_a_whole_shard_is_copied_and_not_decoded(tmp_path: Path) -> None:
    """To drain a drive: with every other shard of the stripe lost it can be moved all the same."""
    bench = Bench.make(tmp_path, 4, 2, spare=1)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        expected = payload_of(bench, record, 2)
        for index in (0, 1, 3, 4, 5):
            zero_shard(bench, record, record.places[index])
        draining = bench.drive_of(record.places[2])
        moved = await chunks.rebuild(record, [2], avoid=[draining])
        assert bench.drive_of(moved.places[2]) not in bench.drives_of(record)
        assert payload_of(bench, moved, 2) == expected


@trio_test
async def test_no_drive_left_says_so_and_a_full_one_too(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        spare = (set(range(4)) - set(bench.drives_of(record))).pop()
        own = bench.drive_of(record.places[0])
        with pytest.raises(DriveGoneError, match="add a drive"):
            await chunks.rebuild(record, [0], avoid=[spare, own])
    small = SmallDrives(1 << 20)
    async with bench.store(small) as chunks:
        records = []
        with pytest.raises(NoSpaceError):
            while True:
                records.append(await chunks.write_stripe([some_bytes(CODED_BYTES)]))
        with pytest.raises(NoSpaceError, match="room"):
            for index in itertools.cycle(range(3)):
                await chunks.rebuild(records[0], [index])


@trio_test
async def test_a_failed_sync_of_a_rebuilt_shard_is_told(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2, spare=1)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        await chunks.sync()
        spare = (set(range(7)) - set(bench.drives_of(record))).pop()
        own = bench.drive_of(record.places[1])
        rebuilt = await chunks.rebuild(without(record, [1]), [1], avoid=[own])
        assert bench.drive_of(rebuilt.places[1]) == spare
        bench.opener.faults[spare].syncs_left = 0
        await chunks.sync()
    assert [(stripe, shard) for stripe, shard, _ in bench.damage] == [(record.stripe_id, 1)]
