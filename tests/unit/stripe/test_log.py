"""The commit log: m+1 copies, whole or not at all, found again after anything that spares one of them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.errors import NoSpaceError
from ciaosfs.base.limits import KIB, MIB
from ciaosfs.base.types import VolumeKind
from ciaosfs.codec.needle import NEEDLE_MAGIC, NeedleKind
from tests.support.chunks import Bench, some_bytes

CODED_BYTES = 300_000


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def log_volumes(bench: Bench, number: int | None = None) -> list[Path]:
    return [
        bench.path_of(volume)
        for volume, (drive, kind, _) in sorted(bench.volumes.items())
        if kind is VolumeKind.LOG and number in (None, drive)
    ]


@pytest.mark.parametrize(("data_count", "parity_count"), [(1, 0), (1, 2), (2, 1), (4, 2)])
@trio_test
async def test_commits_and_roots_are_found_on_m_plus_one_drives_the_lowest(
    tmp_path: Path, data_count: int, parity_count: int
) -> None:
    bench = Bench.make(tmp_path, data_count, parity_count)
    async with bench.store() as chunks:
        await chunks.append_commit(7, b"seven")
        await chunks.write_stripe([b"hot"])
        await chunks.append_commit(8, some_bytes(200_000), image_root=True)
        await chunks.append_commit(9, memoryview(b"nine"))
    async with bench.store() as chunks:
        found = [(entry.sequence, entry.drive_number, entry.kind) for entry in chunks.scan_log(0)]
        drives = range(parity_count + 1)
        commits = {(sequence, drive, NeedleKind.COMMIT) for sequence in (7, 9) for drive in drives}
        assert set(found) == commits | {(8, drive, NeedleKind.IMAGE_ROOT) for drive in drives}
        assert {bytes(entry.payload()) for entry in chunks.scan_log(0) if entry.sequence == 9} == {b"nine"}
        assert {entry.sequence for entry in chunks.scan_log(0, sequence_min=8)} == {8, 9}


@trio_test
async def test_a_scan_from_the_open_volumes_on_leaves_older_sessions_out(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        await chunks.append_commit(1, b"old")
    async with bench.store() as chunks:
        low = chunks.log_volume_min()
        await chunks.append_commit(2, b"new")
        assert {entry.sequence for entry in chunks.scan_log(low)} == {2}
        assert {entry.sequence for entry in chunks.scan_log(0)} == {1, 2}
        assert {entry.sequence for entry in chunks.scan_log(chunks.log_volume_min())} == {2}


@trio_test
async def test_a_torn_commit_is_not_found_where_it_is_torn_and_those_behind_it_are(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        for sequence in range(1, 6):
            await chunks.append_commit(sequence, some_bytes(50_000))
    for number in (0, 1):
        (path,) = log_volumes(bench, number)
        with path.open("r+b") as file:
            raw = file.read()
            starts = [at for at in range(0, len(raw), 64) if raw[at : at + 8] == NEEDLE_MAGIC]
            assert len(starts) == 5
            file.seek(starts[1 + number])
            file.write(bytes(300))  # a head that never arrived, of another commit on each drive
            file.seek(starts[3] + 20_000)
            file.write(b"?")  # a payload that is torn, of the same commit on both
            file.truncate(starts[4] + 30_000)  # the tail
    async with bench.store() as chunks:
        found = sorted((entry.sequence, entry.drive_number) for entry in chunks.scan_log(0))
        assert found == [(1, 0), (1, 1), (2, 1), (3, 0)]


@trio_test
async def test_a_payload_that_looks_like_a_log_is_no_log(tmp_path: Path) -> None:
    """A file may hold a copy of a log volume; its needles are skipped as payload, or name another place."""
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        await chunks.append_commit(66, b"from elsewhere")
    forged = log_volumes(bench)[0].read_bytes()[4096:]
    async with bench.store() as chunks:
        await chunks.append_commit(1, b"before")
        await chunks.write_stripe([forged])
        await chunks.append_commit(2, b"after")
        low = chunks.log_volume_min()
        assert {entry.sequence for entry in chunks.scan_log(low)} == {1, 2}
    path = log_volumes(bench, 0)[-1]
    with path.open("r+b") as file:
        raw = file.read()
        starts = [at for at in range(0, len(raw), 64) if raw[at : at + 8] == NEEDLE_MAGIC]
        assert len(starts) >= 3
        file.seek(starts[1])
        file.write(bytes(8))  # the hot stripe's head is lost: the scan walks through its payload
    async with bench.store() as chunks:
        assert {e.sequence for e in chunks.scan_log(low) if e.drive_number == 0} == {1, 2}


@trio_test
async def test_a_log_volume_is_sealed_at_its_limit_and_a_huge_commit_still_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ciaosfs.volume.volume._BYTES_MAX", {VolumeKind.DATA: MIB, VolumeKind.LOG: 200 * KIB})
    monkeypatch.setattr("ciaosfs.volume.appending.VOLUME_LOG_BYTES_MAX", 200 * KIB)
    bench = Bench.make(tmp_path, 1, 1)
    async with bench.store() as chunks:
        for sequence in range(1, 9):
            await chunks.append_commit(sequence, some_bytes(60_000))
        assert len(log_volumes(bench, 0)) >= 3
        low = chunks.log_volume_min()
        await chunks.append_commit(9, some_bytes(900_000))
        await chunks.append_commit(10, b"after")
        await chunks.sync()
        assert {entry.sequence for entry in chunks.scan_log(low)} >= {9, 10}
        assert {entry.sequence for entry in chunks.scan_log(0)} == set(range(1, 11))


@trio_test
async def test_room_is_reserved_ahead_of_the_log_and_given_back_by_the_next_session(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 1, 1)
    async with bench.store() as chunks:
        await chunks.append_commit(1, b"changes")
        (path,) = log_volumes(bench, 0)
        assert path.stat().st_blocks * 512 > 4 * MIB, "reserved"
        assert path.stat().st_size < 64 * KIB, "and not part of the file"
        held = chunks._appenders.held(0)
        assert held > 4 * MIB
        await chunks.append_commit(2, some_bytes(6 * MIB))
        assert chunks._appenders.held(0) >= held / 2
        assert path.stat().st_blocks * 512 > 6 * MIB + held / 2
    before = path.stat().st_blocks * 512
    async with bench.store() as chunks:
        await chunks.append_commit(3, b"changes")
        assert path.stat().st_blocks * 512 < before - 3 * MIB
        assert {entry.sequence for entry in chunks.scan_log(0)} == {1, 2, 3}


@trio_test
async def test_logs_that_were_opened_in_a_past_trouble_are_left_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ciaosfs.stripe.log.SETTLED_COMMITS", 5)
    bench = Bench.make(tmp_path, 1, 1, spare=1)
    async with bench.store() as chunks:
        await chunks.append_commit(1, b"one")
        bench.hide(0)
        await chunks.refresh_drives()
        await chunks.append_commit(2, b"two")
        bench.bring_back(0)
        await chunks.refresh_drives()
        (stray,) = log_volumes(bench, 2)
        for sequence in range(3, 10):
            await chunks.append_commit(sequence, b"more")
        assert chunks._appenders.current(2, VolumeKind.LOG) is None
        assert stray.stat().st_blocks * 512 < 64 * KIB, "what was reserved is given back"
        await chunks.sync()
        assert {entry.sequence for entry in chunks.scan_log(0)} == set(range(1, 10))
        assert {3, 9} <= {entry.sequence for entry in chunks.scan_log(chunks.log_volume_min())}


@trio_test
async def test_a_full_log_drive_gives_way_to_another(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    async with bench.store() as chunks:
        await chunks.append_commit(1, b"one")
        bench.opener[0].bytes_left = 0
        await chunks.append_commit(2, b"two")
        copies = {(entry.sequence, entry.drive_number) for entry in chunks.scan_log(0)}
        assert {(2, 1), (2, 2)} <= copies and (2, 0) not in copies
        await chunks.append_commit(3, b"three")
        copies = {(entry.sequence, entry.drive_number) for entry in chunks.scan_log(0)}
        assert {(3, 1), (3, 2)} <= copies, "full drives come last"


@trio_test
async def test_a_commit_that_finds_no_room_is_taken_back_where_it_was_written(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 1, 1)
    async with bench.store() as chunks:
        await chunks.append_commit(1, b"one")
        bench.opener[1].bytes_left = 0
        with pytest.raises(NoSpaceError):
            await chunks.append_commit(2, b"never")
        assert {entry.sequence for entry in chunks.scan_log(0)} == {1}
        bench.opener[1].bytes_left = None
        await chunks.append_commit(2, b"two")
        await chunks.sync()
        assert {(e.sequence, bytes(e.payload())) for e in chunks.scan_log(0)} == {(1, b"one"), (2, b"two")}


@trio_test
async def test_a_volume_that_cannot_be_read_is_passed_over_by_the_scan(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 1, 1)
    async with bench.store() as chunks:
        await chunks.append_commit(1, b"one")
    path = log_volumes(bench, 0)[0]
    os.truncate(path, 100)
    async with bench.store() as chunks:
        assert {(entry.sequence, entry.drive_number) for entry in chunks.scan_log(0)} == {(1, 1)}
        bench.opener[1].is_unreadable = True
        assert list(chunks.scan_log(0)) == []
