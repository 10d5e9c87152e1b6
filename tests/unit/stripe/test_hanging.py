"""Drives that hang in a write, a sync, a look or while a volume is made: they are set aside, and nothing waits for them.

Deadlines are short here; what is asserted is what happens, not when.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base import limits
from ciaosfs.base.errors import DriveGoneError, NoSpaceError
from ciaosfs.stripe.store import ChunkStore
from tests.support.builders import eventually
from tests.support.chunks import Bench, some_bytes
from tests.support.slow_drive import SlowDrives

CODED_BYTES = 300_000
PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def _quiet_and_short(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(limits, "DRIVE_DEADLINE_S", 0.4)
    monkeypatch.setattr(limits, "DRIVE_DEADLINE_S_MAX", 1.0)
    monkeypatch.setattr(limits, "DRIVE_HANGING_S", 0.1)
    monkeypatch.setattr(limits, "WRITE_OFF_S", 0.1)
    monkeypatch.setattr("ciaosfs.volume.driveset.FAILING_RETRY_S", 0.05)


@asynccontextmanager
async def slow_store(bench: Bench, drives: SlowDrives) -> AsyncIterator[ChunkStore]:
    async with bench.store(drives) as chunks:
        try:
            with trio.fail_after(PATIENCE_S):
                yield chunks
        finally:
            drives.release()


def states(chunks: ChunkStore) -> list[str]:
    return [str(status.state) for status in chunks.drive_statuses()]


async def answers_again(chunks: ChunkStore, drives: SlowDrives, number: int) -> None:
    """Let a drive go, and look at it until it is in use."""
    drives.release()
    while states(chunks)[number] != "online":
        await chunks.refresh_drives()
        await trio.sleep(0.01)


@pytest.mark.parametrize("operation", ["write", "create"])
@trio_test
async def test_a_stripe_is_written_without_a_drive_that_hangs(tmp_path: Path, operation: str) -> None:
    bench, drives = Bench.make(tmp_path, 4, 2), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        payload = some_bytes(CODED_BYTES)
        if operation == "write":
            await chunks.write_stripe([payload])
        drives[5].hang(operation)
        record = await chunks.write_stripe([payload])
        assert record.missing_count == 1
        assert 5 not in bench.drives_of(record)
        assert states(chunks)[5] == "failing"
        assert "not answered" in chunks.drive_statuses()[5].reason
        again = await chunks.write_stripe([payload])
        assert again.missing_count == 1 and drives[5].stuck == 1, "nothing else is sent to it"
        await chunks.sync()
        await answers_again(chunks, drives, 5)
        await eventually(lambda: drives[5].stuck == 0)
        whole = await chunks.write_stripe([payload])
        assert whole.missing_count == 0
        await chunks.sync()
        for written in (record, again, whole):
            assert bytes(await chunks.read(written, 0, len(payload))) == payload
    async with bench.store() as chunks:
        for written in (record, again, whole):
            assert bytes(await chunks.read(written, 0, len(payload))) == payload


@trio_test
async def test_a_sync_does_not_wait_for_a_drive_that_hangs_and_counts_its_shards_as_missing(
    tmp_path: Path,
) -> None:
    bench, drives = Bench.make(tmp_path, 4, 2), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        payload = some_bytes(CODED_BYTES)
        record = await chunks.write_stripe([payload])
        await chunks.append_commit(1, b"changes")
        hung = bench.drives_of(record)[1]
        drives[hung].hang("sync")
        await chunks.sync()
        assert [(stripe, shard) for stripe, shard, _ in bench.damage] == [(record.stripe_id, 1)]
        assert states(chunks)[hung] == "failing"
        await chunks.sync()
        assert chunks.statistics().calls.set_aside == 1
        assert chunks.statistics().calls.hanging == (hung,)
        volume = record.places[1].volume_id
        assert bench.volumes[volume][2] == "sealed"
        await answers_again(chunks, drives, hung)
        after = await chunks.write_stripe([payload])
        assert after.missing_count == 0
        assert volume not in {place.volume_id for place in after.places}, "what it was on is retired"
    bench.hide(hung)
    async with bench.store() as chunks:
        assert bytes(await chunks.read(record, 0, len(payload))) == payload
        assert {entry.sequence for entry in chunks.scan_log(0)} == {1}


@trio_test
async def test_a_commit_whose_copy_hangs_gets_another_on_another_drive_that_is_synced(tmp_path: Path) -> None:
    bench, drives = Bench.make(tmp_path, 2, 1, spare=1), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        await chunks.append_commit(1, b"first")
        await chunks.sync()
        await chunks.append_commit(2, b"second")
        drives[0].hang("sync")
        await chunks.sync()
        drives[1].calls["sync"] = drives[2].calls["sync"] = 0
        copies = {(entry.sequence, entry.drive_number) for entry in chunks.scan_log(0)}
        assert {(2, 1), (2, 2)} <= copies
        drives.release()
        drives[1].hang("write")
        await chunks.append_commit(3, b"third")
        await chunks.sync()
        good = {entry.drive_number for entry in chunks.scan_log(0) if entry.sequence == 3}
        assert len(good - {1}) >= 1


@trio_test
async def test_more_than_m_drives_hanging_is_an_error_and_not_for_ever(tmp_path: Path) -> None:
    bench, drives = Bench.make(tmp_path, 2, 1), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        for number in (0, 1):
            drives[number].hang("write", "sync")
        with pytest.raises(DriveGoneError):
            await chunks.write_stripe([some_bytes(CODED_BYTES)])
        with pytest.raises(DriveGoneError, match=str(record.stripe_id)):
            await chunks.sync()


@trio_test
async def test_a_drive_that_hangs_in_a_look_is_failing_and_the_others_are_seen(tmp_path: Path) -> None:
    bench, drives = Bench.make(tmp_path, 2, 1, spare=1), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        drives[1].hang("look")
        bench.hide(2)
        await chunks.refresh_drives()
        assert states(chunks) == ["online", "failing", "absent", "online"]
        await chunks.refresh_drives()
        assert drives[1].stuck == 1, "no other thread is sent after it"
        bench.bring_back(2)
        await answers_again(chunks, drives, 1)
        # A drive that comes back is synced first, with all else on its disk: on a busy one that outlasts the deadline.
        await answers_again(chunks, drives, 2)
        assert states(chunks) == ["online"] * 4


@trio_test
async def test_a_full_drive_beside_one_that_hangs(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1, spare=2)
    drives = SlowDrives(bench.opener)
    async with slow_store(bench, drives) as chunks:
        payload = some_bytes(CODED_BYTES)
        await chunks.write_stripe([payload])
        drives[0].hang("write")
        bench.opener[1].bytes_left = 1000
        record = await chunks.write_stripe([payload])
        assert not {0, 1} & set(bench.drives_of(record))
        assert record.missing_count == 0
        await chunks.append_commit(1, b"changes")
        await chunks.sync()
        assert bytes(await chunks.read(record, 0, len(payload))) == payload
        for number in (2, 3, 4):
            bench.opener[number].bytes_left = 1000
        with pytest.raises(NoSpaceError):
            await chunks.write_stripe([payload])


@trio_test
async def test_what_is_discarded_and_verified_beside_a_drive_that_hangs(tmp_path: Path) -> None:
    bench, drives = Bench.make(tmp_path, 2, 1), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        payload = some_bytes(CODED_BYTES)
        dead, alive = [await chunks.write_stripe([payload]) for _ in range(2)]
        await chunks.sync()
        drives[1].hang("open", "punch", "read")
        await chunks.discard([dead])
        found = await chunks.verify([(alive, place) for place in alive.places])
        conditions = [finding.condition.value for finding in found]
        hung = bench.drives_of(alive).index(1)
        assert conditions.pop(hung) == "away" and conditions == ["whole"] * 2
        await chunks.advise(alive)
        assert bytes(await chunks.read(alive, 0, len(payload))) == payload


@trio_test
async def test_a_volume_that_is_made_too_late_is_removed_again(tmp_path: Path) -> None:
    bench, drives = Bench.make(tmp_path, 2, 1), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        drives[2].hang("create")
        await chunks.write_stripe([some_bytes(CODED_BYTES)])
        drives[2].hang("look")
        drives[2]._hanging.pop("create").set()
        await eventually(lambda: drives[2].stuck == 0)
        await eventually(lambda: not chunks.statistics().calls.hanging)
        assert list((bench.drives[2].path / "volumes").iterdir()) == []
