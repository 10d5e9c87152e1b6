"""Drives join and leave an open store, and where shards and commits go when drives share a disk or a host."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base.config import DriveConfig, DriveLabels
from ciaosfs.base.types import StripeRecord
from ciaosfs.drive.local import make_drive
from ciaosfs.stripe.store import ChunkStore
from tests.support.chunks import STORE_ID, Bench, some_bytes

CODED_BYTES = 300_000
HOT_BYTES = 5_000


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def new_drive(bench: Bench, number: int) -> DriveConfig:
    """A drive that was just made and that the bench knows of from now on."""
    path = bench.root / f"drive-{number}"
    identity = make_drive(str(path), store_id=STORE_ID, number=number)
    bench.drives.append(DriveConfig(number, identity.drive_uuid, path))
    return bench.drives[-1]


async def write_many(chunks: ChunkStore, count: int, length: int = CODED_BYTES) -> list[StripeRecord]:
    return [await chunks.write_stripe([some_bytes(length)]) for _ in range(count)]


def numbers(chunks: ChunkStore) -> list[int]:
    return [status.number for status in chunks.drive_statuses()]


@trio_test
async def test_a_drive_that_joins_counts_and_is_written_to_at_once(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        before = chunks.space()
        old = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        config = new_drive(bench, 7)
        await chunks.add_drive(config)
        assert numbers(chunks) == [0, 1, 2, 7]
        assert chunks.space() != before
        written = await write_many(chunks, 12)
        used = {number for record in written for number in bench.drives_of(record)}
        assert 7 in used
        await chunks.sync()
        for record in (old, *written):
            assert await chunks.is_readable(record)
    async with bench.store() as chunks:
        assert all([await chunks.is_readable(record) for record in written])


@trio_test
async def test_a_drive_that_is_not_there_yet_joins_as_an_absent_one(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        config = new_drive(bench, 3)
        bench.hide(3)
        await chunks.add_drive(config)
        assert [str(status.state) for status in chunks.drive_statuses()] == ["online"] * 3 + ["absent"]
        bench.bring_back(3)
        await chunks.refresh_drives()
        assert str(chunks.drive_statuses()[3].state) == "online"


@trio_test
async def test_a_draining_drive_is_read_and_gets_nothing_new(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    async with bench.store() as chunks:
        old = [record for record in await write_many(chunks, 12) if 0 in bench.drives_of(record)]
        assert old
        await chunks.append_commit(1, b"before")
        chunks.set_draining(0, True)
        assert [status.is_draining for status in chunks.drive_statuses()] == [True, False, False, False]
        new = [*await write_many(chunks, 6), *await write_many(chunks, 6, HOT_BYTES)]
        await chunks.append_commit(2, b"after")
        await chunks.sync()
        assert all(0 not in bench.drives_of(record) for record in new)
        assert all(record.missing_count == 0 for record in new)
        assert {entry.drive_number for entry in chunks.scan_log(0) if entry.sequence == 2} == {1, 2}
        for record in old:
            shard = next(p.shard_index for p in record.places if bench.drive_of(p) == 0)
            await chunks.read(record, shard % 2 * record.shard_bytes, 1000)
        assert chunks.statistics().reads.reads_degraded == 0
        chunks.set_draining(0, False)
        again = await chunks.write_stripe([some_bytes(HOT_BYTES)])
        assert 0 in bench.drives_of(again), "the log goes to the lowest numbers"


@trio_test
async def test_a_draining_drive_helps_while_others_are_too_few(tmp_path: Path) -> None:
    """A stripe with all its shards is worth more than an empty drive."""
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    async with bench.store() as chunks:
        chunks.set_draining(0, True)
        bench.hide(3)
        await chunks.refresh_drives()
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        assert record.missing_count == 0 and 0 in bench.drives_of(record)
        bench.bring_back(3)
        await chunks.refresh_drives()
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        assert record.missing_count == 0 and 0 not in bench.drives_of(record)


@trio_test
async def test_a_dropped_drive_is_gone_and_its_shards_are_decoded(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    async with bench.store() as chunks:
        payload = some_bytes(CODED_BYTES)
        record = await chunks.write_stripe([payload])
        lost = bench.drives_of(record)[0]
        await chunks.drop_drive(lost)
        assert lost not in numbers(chunks)
        assert bytes(await chunks.read(record, 0, CODED_BYTES)) == payload
        assert chunks.space().available > 0
        await chunks.drop_drive(lost)
        await chunks.refresh_drives()
        after = await write_many(chunks, 3)
        await chunks.append_commit(1, b"log")
        await chunks.sync()
        assert all(lost not in bench.drives_of(record) for record in after)


@trio_test
async def test_a_drive_may_be_dropped_under_load(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    written: list[StripeRecord] = []
    async with bench.store() as chunks:

        async def write(length: int) -> None:
            for number in range(15):
                written.extend(await write_many(chunks, 1, length))
                await chunks.append_commit(number + 1, some_bytes(200))
                await chunks.sync()

        async with trio.open_nursery() as nursery:
            for length in (CODED_BYTES, HOT_BYTES, CODED_BYTES):
                nursery.start_soon(write, length)
            await trio.sleep(0.02)
            await chunks.drop_drive(1)
            assert numbers(chunks) == [0, 2, 3]
            await chunks.add_drive(new_drive(bench, 4))
        for record in written:
            assert await chunks.is_readable(record)
        assert all(record.missing_count == 0 for record in written)


@trio_test
async def test_an_absent_drive_can_be_dropped(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    async with bench.store() as chunks:
        await write_many(chunks, 4)
        bench.hide(2)
        await chunks.refresh_drives()
        await chunks.drop_drive(2)
        assert numbers(chunks) == [0, 1, 3]
        bench.bring_back(2)
        statuses = await chunks.refresh_drives()
        assert [status.number for status in statuses] == [0, 1, 3]


@trio_test
async def test_the_number_of_a_dropped_drive_says_who_it_was(tmp_path: Path) -> None:
    """Numbers are not given twice; another drive under an old number is not believed."""
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    async with bench.store() as chunks:
        await chunks.drop_drive(3)
        impostor = replace(bench.drives[3], uuid=b"i" * 16)
        await chunks.add_drive(impostor)
        assert "taken the place" in chunks.drive_statuses()[3].reason


def label(bench: Bench, hosts: str, disks: str = "") -> None:
    """One-letter labels, by drive; they are all on one file system."""
    bench.drives = [
        replace(
            drive,
            labels=DriveLabels(
                hosts[drive.number : drive.number + 1], disks[drive.number : drive.number + 1]
            ),
        )
        for drive in bench.drives
    ]


@trio_test
async def test_no_host_has_more_shards_or_all_copies_of_a_commit(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2, spare=3)
    hosts = "aaabbbccc"
    label(bench, hosts)
    async with bench.store() as chunks:
        assert chunks.weakness() is None
        written = [*await write_many(chunks, 9), *await write_many(chunks, 4, HOT_BYTES)]
        await chunks.append_commit(1, b"log")
        await chunks.sync()
        for record in written:
            held = Counter(hosts[number] for number in bench.drives_of(record))
            assert max(held.values()) <= 2, held
        copies = {entry.drive_number for entry in chunks.scan_log(0)}
        assert copies == {0, 1, 3}, "two on host a, one elsewhere"


@trio_test
async def test_drives_on_one_file_system_share_a_disk_and_it_is_said(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        assert chunks.weakness() == "All drives are on one disk: losing that disk loses the store."
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        assert record.missing_count == 0
    label(bench, "", "xyz")
    async with bench.store() as chunks:
        assert chunks.weakness() is None


@trio_test
async def test_disks_are_kept_apart_also_when_drives_are_away(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2, spare=2)
    disks = "wwxxyyzz"
    label(bench, "", disks)
    async with bench.store() as chunks:
        bench.hide(7)
        await chunks.refresh_drives()
        for record in await write_many(chunks, 8):
            held = Counter(disks[number] for number in bench.drives_of(record))
            assert record.missing_count == 0 and max(held.values()) <= 2
        bench.hide(6)
        bench.hide(5)
        await chunks.refresh_drives()
        for record in await write_many(chunks, 4):
            assert record.missing_count == 1, "as many as there are drives"
