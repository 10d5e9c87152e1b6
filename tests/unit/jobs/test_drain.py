"""Drives are added, emptied, replaced and let go under a tree that is read and written; nothing of it is lost."""

from __future__ import annotations

import logging
import random
import shutil
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base.config import DriveLabels, load_config
from ciaosfs.base.errors import CiaosError, NoSpaceError, UsageError
from ciaosfs.base.types import StripeRecord
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.jobs.drain import submit_drain
from ciaosfs.jobs.job import JobState
from ciaosfs.jobs.opening import OpenJobs
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.volumes import DriveRow, DriveState
from tests.support.builders import Store, complaints, eventually, files_in, files_of, put, remove

dice = random.Random(20261121)
FILES = {
    b"empty": b"",
    b"small": b"a few bytes",
    b"text": b"compressible " * 30_000,
    b"medium": dice.randbytes(600_000),
    b"large": dice.randbytes(9_000_000),
}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


async def fill(filesystem: FileSystem) -> None:
    for name, data in FILES.items():
        await put(filesystem, name, data)
    await filesystem.sync()


async def remove_drive(jobs: OpenJobs, number: int) -> None:
    await jobs.drives.begin_removal(number)
    with trio.fail_after(60):
        status = await jobs.runner.wait(await submit_drain(jobs.runner, number))
    assert status.state is JobState.DONE, status.message
    assert status.done == status.total


def numbers(store: Store) -> list[int]:
    return [drive.number for drive in store.config.drives]


def place_for(store: Store, name: str) -> Path:
    return store.path / "drives" / name


@trio_test
async def test_an_added_drive_grows_the_store_and_is_there_after_a_restart(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open_with_jobs() as (filesystem, jobs):
        await fill(filesystem)
        number = await jobs.drives.add(place_for(store, "new"), DriveLabels("", "sdx"))
        assert number == 3 and numbers(store) == [0, 1, 2, 3]
        await put(filesystem, b"more", FILES[b"large"])
        await filesystem.sync()
        shards = await jobs.drives.shards_by_drive()
        assert shards[3][0] > 0
    assert [row.number for row in drive_rows(store)] == [0, 1, 2, 3]
    assert store.config.drives[3].labels == DriveLabels("", "sdx")
    assert await files_of(store) == {**FILES, b"more": FILES[b"large"]}
    assert complaints(store.database) == []


def drive_rows(store: Store) -> list[DriveRow]:
    meta = Metadata.open(store.database)
    try:
        return meta.volumes.drives()
    finally:
        meta.close()


@pytest.mark.parametrize("number", [0, 1, 3])
@trio_test
async def test_a_removed_drive_is_empty_gone_and_needed_no_more(tmp_path: Path, number: int) -> None:
    store = Store.make(tmp_path / "store", 2, 1, spare=1)
    directory = store.drive(number)
    async with store.open_with_jobs() as (filesystem, jobs):
        await fill(filesystem)
        await remove_drive(jobs, number)
        assert number not in numbers(store)
        assert not list(directory.iterdir()), "what lay on it is deleted"
        assert number not in await jobs.drives.shards_by_drive()
        assert filesystem.status().stripes_by_missing.keys() == {0}
        assert await files_in(filesystem) == FILES
        await put(filesystem, b"after", b"x" * 500_000)
        assert await jobs.drives.add(directory) == 4, "the place may be used again, the number is not"
    shutil.rmtree(directory)
    assert complaints(store.database) == []
    store.lose_database()
    assert await files_of(store) == {**FILES, b"after": b"x" * 500_000}


@trio_test
async def test_after_a_removal_any_m_drives_and_the_database_may_be_lost(tmp_path: Path) -> None:
    """Also when the drive that is removed held the log of everything before."""
    store = Store.make(tmp_path / "store", 2, 1, spare=1)
    async with store.open_with_jobs() as (filesystem, jobs):
        await fill(filesystem)
        assert 0 in {entry.drive_number for entry in filesystem.parts.chunks.scan_log(0)}
        await remove_drive(jobs, 0)
        left = store.copy(tmp_path / "left")
    left.lose_database()
    for number in numbers(left):
        copy = left.copy(tmp_path / f"without{number}")
        shutil.rmtree(copy.path / "drives" / f"d{number}")
        assert await files_of(copy) == FILES
        assert complaints(copy.database) == []


@trio_test
async def test_an_absent_drive_is_replaced_from_the_others(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open_with_jobs() as (filesystem, jobs):
        await fill(filesystem)
        store.hide(1)
        await filesystem.parts.chunks.refresh_drives()
        await jobs.healer.look()
        verify = jobs.runner.unfinished("verify")
        assert verify is not None, "it waits for the drive to come back"
        assert await jobs.drives.replace(1, place_for(store, "new")) == 3
        status = await jobs.runner.wait(await submit_drain(jobs.runner, 1))
        assert status.state is JobState.DONE, status.message
        assert numbers(store) == [0, 2, 3]
        assert await filesystem.stripes_by_missing() == {0: len(filesystem.parts.meta.stripes.ids_after(0))}
        await jobs.healer.look()
        with trio.fail_after(30):
            ended = await jobs.runner.wait(verify.job_id)
        assert ended.state is JobState.DONE and "no part of the store" in ended.message
    assert await files_of(store) == FILES
    assert complaints(store.database) == []


@trio_test
async def test_a_drive_whose_directory_was_emptied_is_replaced_in_its_own_place(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    place = store.drive(2)
    async with store.open_with_jobs() as (filesystem, jobs):
        await fill(filesystem)
        shutil.rmtree(place)
        place.mkdir()
        assert await jobs.drives.replace(2, place) == 3
        status = await jobs.runner.wait(await submit_drain(jobs.runner, 2))
        assert status.state is JobState.DONE, status.message
        assert numbers(store) == [0, 1, 3] and store.config.drives[2].path == place
        assert set(await filesystem.stripes_by_missing()) == {0}
    shutil.rmtree(store.drive(0))
    assert await files_of(store) == FILES


@trio_test
async def test_a_present_drive_is_replaced_while_files_come_and_go(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open_with_jobs() as (filesystem, jobs):
        await fill(filesystem)
        expected = dict(FILES)

        async def keep_writing() -> None:
            for turn in range(12):
                name = b"turn%d" % turn
                expected[name] = random.Random(turn).randbytes(200_000 * (turn % 5) + 100)
                await put(filesystem, name, expected[name])
                if turn % 3 == 2:
                    await remove(filesystem, b"turn%d" % (turn - 1))
                    del expected[b"turn%d" % (turn - 1)]
                await filesystem.sync()
                assert await files_in(filesystem) == expected

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_writing)
            await jobs.drives.replace(0, place_for(store, "new"))
            with trio.fail_after(60):
                status = await jobs.runner.wait(await submit_drain(jobs.runner, 0))
            assert status.state is JobState.DONE, status.message
        assert numbers(store) == [1, 2, 3]
    assert await files_of(store) == expected
    assert complaints(store.database) == []


@trio_test
async def test_what_cannot_be_removed_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 2, 1, spare=1)
    async with store.open_with_jobs() as (filesystem, jobs):
        await fill(filesystem)
        before = (store.path / "ciaosfs.toml").read_text()
        with pytest.raises(UsageError, match="There is no drive 9"):
            await jobs.drives.begin_removal(9)
        store.hide(3)
        with pytest.raises(
            UsageError, match="Without drive 0 there are 2 drives and a stripe needs 3: connect drive 3"
        ):
            await jobs.drives.begin_removal(0)
        store.bring_back(3)
        await filesystem.parts.chunks.refresh_drives()
        await remove_drive(jobs, 3)
        with pytest.raises(UsageError, match="a stripe needs 3: add a drive first, or replace"):
            await jobs.drives.begin_removal(0)
        assert jobs.drives.draining() == []
        assert before != (store.path / "ciaosfs.toml").read_text()
    assert await files_of(store) == FILES


@trio_test
async def test_too_little_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.make(tmp_path / "store", 2, 1, spare=1)
    async with store.open_with_jobs() as (filesystem, jobs):
        await fill(filesystem)
        monkeypatch.setattr(filesystem.parts.chunks, "rooms_without", lambda *_: {1: 1004})
        with pytest.raises(NoSpaceError, match=r"room for 0\.98 KiB"):
            await jobs.drives.begin_removal(0)
        with pytest.raises(NoSpaceError):
            await jobs.drives.replace(0, place_for(store, "new"))
        assert not place_for(store, "new").exists() and jobs.drives.draining() == []


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        (".", "the store itself"),
        ("drives/d0", "a drive of this store already"),
        ("drives/d0/inside", "one inside the other"),
        ("drives", "one inside the other"),
        ("ciaosfs.toml", "not a directory"),
        ("no/where", "does not exist"),
        ("meta", "not empty"),
        ("drives/a\nb", "configuration file cannot hold"),
    ],
)
@trio_test
async def test_places_that_cannot_become_drives(tmp_path: Path, place: str, complaint: str) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    before = (store.path / "ciaosfs.toml").read_text()
    async with store.open_with_jobs() as (_, jobs):
        with pytest.raises(UsageError, match=complaint):
            await jobs.drives.add(store.path / place)
        with pytest.raises(UsageError, match="absolute"):
            await jobs.drives.add(Path("relative"))
        assert numbers(store) == [0, 1, 2]
    assert (store.path / "ciaosfs.toml").read_text() == before
    assert sorted(path.name for path in (store.path / "drives").iterdir()) == ["d0", "d1", "d2"]


@trio_test
async def test_a_drain_survives_a_restart(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 2, 1, spare=1)
    async with store.open_with_jobs() as (filesystem, jobs):
        await fill(filesystem)
        await jobs.drives.begin_removal(1)
        await filesystem.sync()
    async with store.open_with_jobs() as (filesystem, jobs):
        assert 1 in jobs.drives.draining()
        (job,) = jobs.runner.jobs()
        with trio.fail_after(60):
            assert (await jobs.runner.wait(job.job_id)).state is JobState.DONE
        assert numbers(store) == [0, 2, 3]
    assert await files_of(store) == FILES


@trio_test
async def test_a_drain_waits_for_drives_without_which_it_would_lose_something(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 2, 1, spare=1)
    async with store.open_with_jobs() as (filesystem, jobs):
        await fill(filesystem)
        store.hide(2)
        await filesystem.parts.chunks.refresh_drives()
        await jobs.drives.add(place_for(store, "new"))
        await jobs.drives.begin_removal(2)
        store.hide(0)
        await filesystem.parts.chunks.refresh_drives()
        job_id = await submit_drain(jobs.runner, 2)
        await eventually(lambda: "cannot be moved" in jobs.runner.job(job_id).message)
        assert 2 in numbers(store)
        store.bring_back(0)
        await filesystem.parts.chunks.refresh_drives()
        jobs.runner.resume(job_id)
        with trio.fail_after(60):
            assert (await jobs.runner.wait(job_id)).state is JobState.DONE
    assert await files_of(store) == FILES


@trio_test
async def test_a_drain_that_finds_no_room_waits_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.make(tmp_path / "store", 2, 1, spare=1)
    async with store.open_with_jobs() as (filesystem, jobs):
        await fill(filesystem)
        with monkeypatch.context() as full:

            async def refuse(record: StripeRecord, shards: object, *, avoid: object) -> StripeRecord:
                await trio.lowlevel.checkpoint()
                raise NoSpaceError("No drive has room.")

            full.setattr(filesystem.parts.chunks, "rebuild", refuse)
            await jobs.drives.begin_removal(0)
            job_id = await submit_drain(jobs.runner, 0)
            await eventually(lambda: jobs.runner.job(job_id).message == "No drive has room.")
            assert jobs.runner.job(job_id).state is JobState.WAITING
        jobs.runner.resume(job_id)
        with trio.fail_after(60):
            assert (await jobs.runner.wait(job_id)).state is JobState.DONE
    assert await files_of(store) == FILES


@trio_test
async def test_a_drive_with_shards_is_not_let_go(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 2, 1, spare=1)
    async with store.open_with_jobs() as (filesystem, jobs):
        await fill(filesystem)
        with pytest.raises(CiaosError, match="still has shards"):
            await jobs.drives.let_go(1)
        assert numbers(store) == [0, 1, 2, 3]
        rows = filesystem.parts.meta.volumes.drives()
        assert {row.state for row in rows} == {DriveState.ACTIVE}
    assert load_config(store.path).next_drive == 4
