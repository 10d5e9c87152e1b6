"""Which volume the next needle goes to, and the room that is reserved ahead of the log."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base.errors import DriveGoneError
from ciaosfs.base.limits import GIB, KIB, MIB, VOLUME_LOG_BYTES_MAX
from ciaosfs.base.types import VolumeKind
from ciaosfs.drive.calls import DriveCalls
from ciaosfs.drive.local import volume_name
from ciaosfs.drive.workers import Workers
from ciaosfs.volume.appending import (
    LOG_STEP_BYTES_MAX,
    LOG_STEP_BYTES_MIN,
    Appenders,
    is_full_error,
    log_step_bytes,
)
from ciaosfs.volume.driveset import DriveSet, DriveSlot
from ciaosfs.volume.files import VolumeFiles
from ciaosfs.volume.volume import VolumeState
from tests.support.chunks import STORE_ID, Bench


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@asynccontextmanager
async def appending(bench: Bench) -> AsyncIterator[tuple[Appenders, DriveSlot]]:
    """The appenders of a session, and drive 0."""
    async with Workers() as workers:
        drives = DriveSet.open(STORE_ID, bench.drives, bench.opener)
        files = VolumeFiles(STORE_ID)
        for slot in drives.present():
            assert slot.drive is not None
            files.attach(slot.drive, drives.names_at_open[slot.number])
        told = bench.volumes

        def tell(volume_id: int, number: int, kind: VolumeKind, state: VolumeState) -> None:
            told[volume_id] = (number, kind, state)

        calls = DriveCalls(workers, 1, lambda number: True, lambda number, reason: None)
        appenders = Appenders(drives, files, bench.ids, calls, tell)
        try:
            yield appenders, drives.slots[0]
        finally:
            appenders.close()
            files.close()
            drives.close()


def test_the_step_of_the_log_is_scaled_down_on_tiny_drives() -> None:
    assert log_step_bytes(100 * GIB) == LOG_STEP_BYTES_MAX
    assert log_step_bytes(64 * MIB) == MIB
    assert log_step_bytes(1 * MIB) == LOG_STEP_BYTES_MIN


def test_full_is_told_from_ill() -> None:
    assert is_full_error(OSError(errno.ENOSPC, "")) and is_full_error(OSError(errno.EDQUOT, ""))
    assert not is_full_error(OSError(errno.EIO, "")) and not is_full_error(DriveGoneError(""))


@trio_test
async def test_one_volume_is_made_however_many_ask_and_another_when_it_is_full(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 1, 1)
    async with appending(bench) as (appenders, slot):
        found = []

        async def ask() -> None:
            found.append(await appenders.make_ready(slot, VolumeKind.LOG, 1000))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert len(set(found)) == 1
        while found[0].has_room(8 * MIB):
            found[0].take(8 * MIB)
        second = await appenders.make_ready(slot, VolumeKind.LOG, 8 * MIB)
        assert second is not found[0] and appenders.current(0, VolumeKind.LOG) is second
        assert found[0].state is VolumeState.SEALED
        assert bench.volumes[found[0].volume_id][2] == "sealed"
        assert appenders.log_volume_min() == second.volume_id
        data = await appenders.make_ready(slot, VolumeKind.DATA, 1000)
        assert data is not second
        assert appenders.log_volume_min() == second.volume_id


@trio_test
async def test_the_newest_data_volume_is_continued_once_and_never_after_the_drive_was_retired(
    tmp_path: Path,
) -> None:
    bench = Bench.make(tmp_path, 1, 1)
    async with appending(bench) as (appenders, slot):
        older = (await appenders.make_ready(slot, VolumeKind.DATA, 1000)).volume_id
        appenders.retire(0)
        newer = (await appenders.make_ready(slot, VolumeKind.DATA, 1000)).volume_id
        assert newer > older
        await appenders.make_ready(slot, VolumeKind.LOG, 1000)
    async with appending(bench) as (appenders, slot):
        assert (await appenders.make_ready(slot, VolumeKind.DATA, 1000)).volume_id == newer
        appenders.retire(0)
        fresh = (await appenders.make_ready(slot, VolumeKind.DATA, 1000)).volume_id
        assert fresh not in (older, newer)
    async with appending(bench) as (appenders, slot):
        appenders.retire(0)
        assert (await appenders.make_ready(slot, VolumeKind.DATA, 1000)).volume_id > fresh
    damaged = bench.drives[0].path / "volumes" / volume_name(max(bench.volumes))
    damaged.write_bytes(b"?" * 5000)
    async with appending(bench) as (appenders, slot):
        volume = await appenders.make_ready(slot, VolumeKind.DATA, 1000)
        assert volume.volume_id == fresh, "one whose superblock is damaged is passed over"


@trio_test
async def test_a_volume_made_while_its_drive_was_retired_is_not_used(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 1, 1)
    async with appending(bench) as (appenders, slot):
        token = trio.lowlevel.current_trio_token()
        bench.opener[0].before_write = lambda name, offset: trio.from_thread.run_sync(
            appenders.retire, 0, trio_token=token
        )
        with pytest.raises(DriveGoneError, match="left or failed"):
            await appenders.make_ready(slot, VolumeKind.DATA, 1000)
        assert appenders.current(0, VolumeKind.DATA) is None


@trio_test
async def test_reserving_keeps_ahead_of_the_tail_in_steps_and_ends_with_the_volume(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 1, 1)
    async with appending(bench) as (appenders, slot):
        volume = await appenders.make_ready(slot, VolumeKind.LOG, 1000)
        step = volume.reserve_to - 4096
        assert step >= LOG_STEP_BYTES_MIN and volume.preallocated == volume.reserve_to
        assert appenders.plan_reserve(volume) == 0
        plans = []
        while volume.has_room(100 * KIB):
            volume.take(100 * KIB)
            plan = appenders.plan_reserve(volume)
            assert volume.tail + step // 2 <= volume.reserve_to or volume.reserve_to == VOLUME_LOG_BYTES_MAX
            if plan:
                plans.append(plan)
                assert plan == volume.reserve_to
        assert plans == sorted(set(plans)) and plans[-1] == VOLUME_LOG_BYTES_MAX
        assert len(plans) < 3 * VOLUME_LOG_BYTES_MAX // step
        data = await appenders.make_ready(slot, VolumeKind.DATA, 1000)
        data.take(3 * MIB)
        assert appenders.plan_reserve(data) == 0 and data.held == 0


@trio_test
async def test_a_log_goes_on_without_reserved_room_where_there_is_none(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 1, 1)
    bench.opener[0].bytes_left = 10_000
    async with appending(bench) as (appenders, slot):
        volume = await appenders.make_ready(slot, VolumeKind.LOG, 1000)
        assert volume.preallocated == 0 and appenders.held(0) == 0 and volume.claimed == volume.tail
