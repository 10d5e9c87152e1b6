"""Drives go and come back while the store is open, fail and recover; nobody has to do anything about it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base.errors import DriveGoneError, NoSpaceError
from ciaosfs.base.types import ShardPlace, VolumeKind
from ciaosfs.drive.local import make_drive, volume_name
from ciaosfs.stripe.store import ChunkStore
from tests.support.chunks import STORE_ID, Bench, some_bytes

CODED_BYTES = 300_000


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def states(chunks: ChunkStore) -> list[str]:
    return [str(status.state) for status in chunks.drive_statuses()]


def on_drive(bench: Bench, places: tuple[ShardPlace, ...], number: int) -> ShardPlace:
    return next(place for place in places if bench.volumes[place.volume_id][0] == number)


@trio_test
async def test_a_drive_renamed_away_is_absent_and_back_is_online_again(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    payload = some_bytes(CODED_BYTES)
    async with bench.store() as chunks:
        old = await chunks.write_stripe([payload])
        await chunks.sync()
        bench.hide(2)
        statuses = await chunks.refresh_drives()
        assert [str(status.state) for status in statuses] == ["online"] * 2 + ["absent"] + ["online"] * 3
        assert "drive-2" in statuses[2].reason
        # Its descriptors still work, but it is not read, nor written.
        assert bytes(await chunks.read(old, 0, len(payload))) == payload
        place = on_drive(bench, old.places, 2)
        if place.shard_index < 4:
            assert chunks.read_nowait(old, place.shard_index * old.shard_bytes, 10) is None
            assert chunks.statistics().reads.reads_degraded > 0
        assert bench.damage == [], "absent is not damaged"
        away = await chunks.write_stripe([payload])
        assert away.missing_count == 1
        assert bench.volumes[place.volume_id][2] == "sealed"
        await chunks.append_commit(1, b"changes")
        await chunks.sync()

        bench.bring_back(2)
        assert states(chunks)[2] == "absent", "found out by the next look"
        await chunks.refresh_drives()
        assert states(chunks)[2] == "online"
        before = chunks.statistics().reads.reads_degraded
        assert bytes(await chunks.read(old, 0, len(payload))) == payload
        assert chunks.statistics().reads.reads_degraded == before, "its old shards are read again"
        new = await chunks.write_stripe([payload])
        assert new.missing_count == 0
        assert on_drive(bench, new.places, 2).volume_id != place.volume_id, "new writes go to a fresh volume"
        await chunks.sync()
    async with bench.store() as chunks:
        for record in (old, away, new):
            assert bytes(await chunks.read(record, 0, len(payload))) == payload


@trio_test
async def test_what_was_written_before_a_drive_went_is_still_synced(tmp_path: Path) -> None:
    """The descriptor works although the path is gone; if the drive comes back, so does its shard."""
    bench = Bench.make(tmp_path, 2, 1)
    payload = some_bytes(CODED_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
        bench.hide(0)
        await chunks.refresh_drives()
        assert bench.opener[0].pending
        await chunks.sync()
        assert not bench.opener[0].pending
        assert bench.damage == []
        bench.bring_back(0)
        await chunks.refresh_drives()
        assert await chunks.is_readable(record)
        assert chunks.statistics().reads.reads_degraded == 0


@trio_test
async def test_log_drives_move_on_when_one_goes_and_return_with_a_new_volume(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    async with bench.store() as chunks:
        floor = chunks.log_volume_min()
        await chunks.append_commit(1, b"one")
        first = chunks.log_volume_min()
        assert first > floor
        bench.hide(0)
        await chunks.refresh_drives()
        await chunks.append_commit(2, b"two")
        assert chunks.log_volume_min() >= first
        bench.bring_back(0)
        await chunks.refresh_drives()
        await chunks.append_commit(3, b"three")
        copies = {(entry.sequence, entry.drive_number) for entry in chunks.scan_log(0)}
        assert copies == {(1, 0), (1, 1), (2, 1), (2, 2), (3, 0), (3, 1)}
        logs = [v for v, (number, kind, _) in bench.volumes.items() if (number, kind) == (0, VolumeKind.LOG)]
        assert len(logs) == 2
        assert {entry.sequence for entry in chunks.scan_log(chunks.log_volume_min())} >= {3}


@trio_test
async def test_too_many_drives_away_stop_writes_but_not_what_can_be_read(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        hot = await chunks.write_stripe([b"hot"])
        coded = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        gone = [n for n in range(3) if n != bench.drive_of(hot.places[0])]
        for number in gone:
            bench.hide(number)
        await chunks.refresh_drives()
        assert bytes(await chunks.read(hot, 0, 3)) == b"hot"
        for attempt in (
            chunks.write_stripe([b"more"]),
            chunks.append_commit(1, b"changes"),
            chunks.read(coded, 0, CODED_BYTES),
        ):
            with pytest.raises(DriveGoneError):
                await attempt
        assert chunks.space().available == 0
        for number in gone:
            bench.bring_back(number)
        await chunks.refresh_drives()
        await chunks.append_commit(1, b"changes")
        assert (await chunks.write_stripe([b"more"])).missing_count == 0


@trio_test
async def test_a_drive_that_went_unnoticed_is_passed_over_when_it_needs_a_new_volume(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    async with bench.store() as chunks:
        bench.hide(5)
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        assert record.missing_count == 1


@trio_test
async def test_another_drive_in_its_place_is_not_the_drive(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        await chunks.write_stripe([some_bytes(CODED_BYTES)])
        bench.hide(1)
        make_drive(str(bench.drives[1].path), store_id=STORE_ID, number=1)
        await chunks.refresh_drives()
        assert states(chunks)[1] == "absent"
        assert "Another drive" in chunks.drive_statuses()[1].reason
        shutil.rmtree(bench.drives[1].path)
        make_drive(str(bench.drives[1].path), store_id=bytes(16), number=1)
        await chunks.refresh_drives()
        assert "another store" in chunks.drive_statuses()[1].reason
        shutil.rmtree(bench.drives[1].path)
        bench.bring_back(1)
        await chunks.refresh_drives()
        assert states(chunks) == ["online"] * 3


@trio_test
async def test_a_store_opened_without_a_drive_takes_it_in_when_it_comes(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    payload = some_bytes(CODED_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
    bench.hide(bench.drive_of(record.places[0]))
    hidden = next(n for n in range(3) if not bench.drives[n].path.exists())
    async with bench.store() as chunks:
        assert states(chunks)[hidden] == "absent"
        assert bytes(await chunks.read(record, 0, len(payload))) == payload
        bench.bring_back(hidden)
        await chunks.refresh_drives()
        before = chunks.statistics().reads.reads_degraded
        assert bytes(await chunks.read(record, 0, len(payload))) == payload
        assert chunks.statistics().reads.reads_degraded == before


@trio_test
async def test_ids_of_new_volumes_are_above_those_of_a_drive_that_came(tmp_path: Path) -> None:
    """The clock was set back while the drive was away: an id must not come to name two files."""
    bench = Bench.make(tmp_path, 2, 1)
    ahead = bench.ids.take() + (1 << 40)
    volumes = bench.drives[2].path / "volumes"
    (volumes / volume_name(ahead)).touch()
    async with bench.store() as chunks:
        assert bench.ids.take() > ahead
        bench.hide(2)
        await chunks.refresh_drives()
        (bench.drives[2].path.with_suffix(".away") / "volumes" / volume_name(ahead + (1 << 41))).touch()
        bench.bring_back(2)
        await chunks.refresh_drives()
        assert bench.ids.take() > ahead + (1 << 41)


@trio_test
async def test_a_failing_drive_is_tried_again_after_a_while_with_a_new_volume(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        first = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        bench.opener[1].writes_left = 0
        await chunks.write_stripe([some_bytes(CODED_BYTES)])
        assert states(chunks)[1] == "failing"
        slot = chunks._drives.slots[1]
        files = len(list(bench.drives[1].path.joinpath("volumes").iterdir()))
        await chunks.refresh_drives()
        assert states(chunks)[1] == "failing", "not before its time"
        for _ in range(3):
            slot.retry_at_s = 0.0
            await chunks.refresh_drives()
        assert states(chunks)[1] == "failing", "it fails still"
        slot.retry_at_s = 0.0
        bench.opener[1].writes_left = None
        bench.opener[1].syncs_left = 0
        await chunks.refresh_drives()
        assert states(chunks)[1] == "failing", "it writes, and does not sync"
        assert len(list(bench.drives[1].path.joinpath("volumes").iterdir())) <= files + 3
        slot.retry_at_s = 0.0
        bench.opener[1].syncs_left = None
        await chunks.refresh_drives()
        assert states(chunks)[1] == "online"
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        assert record.missing_count == 0
        assert on_drive(bench, record.places, 1).volume_id != on_drive(bench, first.places, 1).volume_id
        await chunks.sync()


@trio_test
async def test_refreshing_while_stripes_are_written_loses_none(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    done = []

    async def write() -> None:
        for _ in range(10):
            payload = some_bytes(CODED_BYTES)
            done.append((await chunks.write_stripe([payload]), payload))

    async def flap() -> None:
        for _ in range(4):
            bench.hide(3)
            await chunks.refresh_drives()
            bench.bring_back(3)
            await chunks.refresh_drives()

    async with bench.store() as chunks:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(write)
            nursery.start_soon(flap)
        await chunks.sync()
    bench.hide(0)
    async with bench.store() as chunks:
        for record, payload in done:
            assert bytes(await chunks.read(record, 0, len(payload))) == payload


@trio_test
async def test_space_follows_what_is_written_between_looks(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        before = chunks.space()
        for _ in range(4):
            await chunks.write_stripe([some_bytes(2 * 1024 * 1024)])
        after = chunks.space()
        # All drives of the bench share one file system: three bytes go for two.
        assert before.free - after.free >= 8 * 1024 * 1024
        assert before.available - after.available >= 0.99 * 8 * 1024 * 1024
        assert before.total == after.total
        with pytest.raises(NoSpaceError):
            for slot in chunks._drives.slots.values():
                slot.sent(slot.measured_free)
            assert chunks.space().available == 0
            chunks._presence.refresh = _no_look  # type: ignore[method-assign]
            chunks._spreader._look = _no_look
            await chunks.write_stripe([some_bytes(CODED_BYTES)])


async def _no_look() -> None:
    pass
