"""The drives of a store: their states, and how much room is left between two looks at them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ciaosfs.base.limits import GIB, MIB
from ciaosfs.drive.interface import FreeSpace
from ciaosfs.volume.driveset import (
    FAILING_RETRY_MAX_S,
    FAILING_RETRY_S,
    FORMER_DRIVES_MAX,
    DriveSet,
    DriveSlot,
    DriveState,
)
from tests.support.chunks import STORE_ID, Bench


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench.make(tmp_path, 2, 1)
    for number in range(3):
        bench.opener[number].free_reported = FreeSpace(number // 2, GIB, 4 * GIB)
    return bench


def state(slot: DriveSlot) -> DriveState:
    return slot.state


def look(slot: DriveSlot) -> None:
    slot.looking()
    slot.saw(slot.look())


def test_drives_are_opened_in_the_order_of_their_numbers_whatever_the_configurations(bench: Bench) -> None:
    drives = DriveSet.open(STORE_ID, bench.drives[::-1], bench.opener)
    assert [status.number for status in drives.statuses()] == [0, 1, 2]
    assert {status.state for status in drives.statuses()} == {DriveState.ONLINE}
    assert drives.all_present() and len(drives.usable()) == 3
    assert drives.names_at_open == {0: (), 1: (), 2: ()}
    drives.close()
    assert drives.present() == []


def test_absent_drives_have_a_reason_and_stop_nothing(bench: Bench) -> None:
    bench.hide(1)
    drives = DriveSet.open(STORE_ID, bench.drives, bench.opener)
    status = drives.statuses()[1]
    assert status.state is DriveState.ABSENT and "drive-1" in status.reason
    assert not drives.all_present() and len(drives.usable()) == 2
    assert 1 not in drives.names_at_open


def test_free_space_is_what_was_measured_without_what_was_sent_since(bench: Bench) -> None:
    drives = DriveSet.open(STORE_ID, bench.drives, bench.opener)
    slot = drives.slots[0]
    version = drives.version
    slot.sent(10 * MIB)
    assert drives.version != version
    assert slot.status().free == GIB - 10 * MIB
    slot.arrived(10 * MIB)
    assert slot.status().free == GIB - 10 * MIB, "the measurement is from before"
    look(slot)
    assert slot.status().free == GIB


def test_bytes_under_way_during_a_look_count_until_the_next(bench: Bench) -> None:
    """Nobody knows whether the measurement saw them: the figure errs on the full side."""
    drives = DriveSet.open(STORE_ID, bench.drives, bench.opener)
    slot = drives.slots[0]
    slot.sent(10 * MIB)
    slot.looking()
    slot.sent(5 * MIB)
    found = slot.look()
    slot.arrived(10 * MIB)
    slot.saw(found)
    assert slot.status().free == GIB - 15 * MIB
    slot.arrived(5 * MIB)
    look(slot)
    assert slot.status().free == GIB


def test_drives_on_one_device_use_up_its_space_together(bench: Bench) -> None:
    drives = DriveSet.open(STORE_ID, bench.drives, bench.opener)
    assert [slot.device for slot in drives.slots.values()] == [0, 0, 1]
    drives.slots[0].sent(MIB)
    drives.slots[1].sent(2 * MIB)
    assert drives.free_on_device(0) == GIB - 3 * MIB
    assert drives.free_on_device(1) == GIB
    drives.slots[0].sent(4 * GIB)
    assert drives.free_on_device(0) == 0
    assert drives.own_total(drives.slots[0]) == 2 * GIB
    assert drives.own_total(drives.slots[2]) == 4 * GIB


def test_a_full_drive_is_used_again_when_clearly_more_is_free_or_after_a_while(bench: Bench) -> None:
    drives = DriveSet.open(STORE_ID, bench.drives, bench.opener)
    slot = drives.slots[0]
    slot.refused()
    assert state(slot) is DriveState.FULL and slot.is_usable
    look(slot)
    assert state(slot) is DriveState.FULL
    bench.opener[0].free_reported = FreeSpace(0, GIB - 5 * MIB, 4 * GIB)
    look(slot)
    bench.opener[0].free_reported = FreeSpace(0, GIB - 5 * MIB + 1000, 4 * GIB)
    look(slot)
    assert state(slot) is DriveState.FULL, "a little more is the noise of a disk that others use"
    bench.opener[0].free_reported = FreeSpace(0, GIB, 4 * GIB)
    look(slot)
    assert state(slot) is DriveState.ONLINE and slot.reason == ""
    slot.refused()
    slot._full_retry_at_s = 0.0
    look(slot)
    assert state(slot) is DriveState.ONLINE


def test_a_failing_drive_is_retried_ever_more_rarely_until_it_left_and_came_back(bench: Bench) -> None:
    drives = DriveSet.open(STORE_ID, bench.drives, bench.opener)
    slot = drives.slots[0]
    pauses = []
    for _ in range(12):
        before = slot._retry_pause_s
        slot.failed("it broke")
        pauses.append(before)
    assert pauses[0] == FAILING_RETRY_S and pauses[-1] == FAILING_RETRY_MAX_S
    assert state(slot) is DriveState.FAILING and not slot.is_usable and slot.reason == "it broke"
    look(slot)
    assert state(slot) is DriveState.FAILING, "being there is not being well"
    slot.recovered()
    assert state(slot) is DriveState.ONLINE
    assert slot._retry_pause_s == FAILING_RETRY_MAX_S
    slot.failed("again")
    bench.hide(0)
    look(slot)
    assert state(slot) is DriveState.ABSENT
    slot.failed("a late error")
    assert state(slot) is DriveState.ABSENT
    bench.bring_back(0)
    look(slot)
    assert state(slot) is DriveState.ONLINE and slot._retry_pause_s == FAILING_RETRY_S


def test_a_drive_that_comes_and_goes_keeps_few_descriptors(bench: Bench) -> None:
    drives = DriveSet.open(STORE_ID, bench.drives, bench.opener)
    slot = drives.slots[0]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3 * FORMER_DRIVES_MAX):
        bench.hide(0)
        look(slot)
        bench.bring_back(0)
        look(slot)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + FORMER_DRIVES_MAX
    drives.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before - 3
