"""Crashes while drives come and go: at each named point the store is copied, which is what a kill leaves, and opened
again: the tree is whole, the halves are healed, and what was begun comes to its end.
"""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base.crashpoints import POINTS, hooked
from ciaosfs.jobs import drain
from ciaosfs.jobs.drain import submit_drain
from ciaosfs.jobs.job import JobState
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.volumes import DriveState
from tests.support.builders import Store, complaints, files_in, put
from tests.support.power import Fate, PoweredDrives

dice = random.Random(20261121)
FILES = {b"small": b"a few bytes", b"medium": dice.randbytes(400_000), b"large": dice.randbytes(5_000_000)}
MOVED = ("drain.begun", "drain.written", "drain.recorded", "repair.durable", "repair.given-back")
LET_GO = ("drain.emptied", "drain.unlisted", "drain.forgotten", "drain.erased")


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@contextmanager
def copied_at_every_point(store: Store, target: Path) -> Iterator[dict[str, Store]]:
    """While the context lasts, the first time a point is reached the store is copied to a directory of its name."""
    copies: dict[str, Store] = {}

    def copy(name: str) -> None:
        if name not in copies:
            copies[name] = store.copy(target / name)

    with hooked(copy):
        yield copies


async def finish(store: Store) -> tuple[list[int], dict[int, int]]:
    """Open a store, let what was begun come to its end, look at the tree; its drives and how its stripes are."""
    async with store.open_with_jobs() as (filesystem, jobs):
        assert await files_in(filesystem) == FILES
        with trio.fail_after(60):
            for job in [job for job in jobs.runner.jobs() if job.kind == drain.KIND]:
                assert (await jobs.runner.wait(job.job_id)).state is JobState.DONE
        assert await files_in(filesystem) == FILES
        assert jobs.drives.draining() == []
        by_missing = await filesystem.stripes_by_missing()
    assert complaints(store.database) == []
    meta = Metadata.open(store.database)
    rows = meta.volumes.drives()
    known = {row.drive for row in meta.volumes.all()}
    meta.close()
    listed = [drive.number for drive in store.config.drives]
    assert [row.number for row in rows] == listed and known <= set(listed)
    assert {row.state for row in rows} == {DriveState.ACTIVE}
    return listed, by_missing


def both_ways(name: str, copies: dict[str, Store]) -> list[Store]:
    """A copy, and one of it that has lost its database as well."""
    again = copies[name].copy(copies[name].path.with_name(name + ".without-database"))
    again.lose_database()
    return [copies[name], again]


@trio_test
async def test_a_crash_while_a_drive_is_added(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    with copied_at_every_point(store, tmp_path / "at") as copies:
        async with store.open_with_jobs() as (filesystem, jobs):
            for file, data in FILES.items():
                await put(filesystem, file, data)
            await filesystem.sync()
            await jobs.drives.add(store.path / "drives" / "new")
    assert set(copies) == {"add.made", "add.listed", "add.joined"} <= set(POINTS)
    for name in copies:
        for copy in both_ways(name, copies):
            drives, by_missing = await finish(copy)
            assert drives == ([0, 1, 2] if name == "add.made" else [0, 1, 2, 3])
            assert set(by_missing) == {0}
    left = copies["add.made"]
    async with left.open_with_jobs() as (filesystem, jobs):
        assert await jobs.drives.add(left.path / "drives" / "new") == 3, (
            "what a crash left may be added again"
        )
    assert (await finish(left))[0] == [0, 1, 2, 3]


@pytest.mark.parametrize("absent", [False, True])
@trio_test
async def test_a_crash_while_a_drive_is_replaced(tmp_path: Path, absent: bool) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open_with_jobs() as (filesystem, _):
        for file, data in FILES.items():
            await put(filesystem, file, data)
    if absent:
        shutil.rmtree(store.drive(1))
    with copied_at_every_point(store, tmp_path / "at") as copies:
        async with store.open_with_jobs() as (filesystem, jobs):
            await jobs.drives.replace(1, store.path / "drives" / "new")
            job_id = await submit_drain(jobs.runner, 1)
            with trio.fail_after(60):
                assert (await jobs.runner.wait(job_id)).state is JobState.DONE
            await filesystem.sync()
    assert {"replace.made", "replace.listed", "replace.joined", *MOVED[1:], *LET_GO} <= set(copies)
    for name in copies:
        drives, by_missing = await finish(copies[name])
        assert drives == ([0, 1, 2] if name == "replace.made" else [0, 2, 3]), name
        if name != "replace.made":
            assert set(by_missing) == {0}


@trio_test
async def test_a_crash_while_a_drive_is_removed(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 2, 1, spare=1)
    async with store.open_with_jobs() as (filesystem, _):
        for file, data in FILES.items():
            await put(filesystem, file, data)
    with copied_at_every_point(store, tmp_path / "at") as copies:
        async with store.open_with_jobs() as (filesystem, jobs):
            await jobs.drives.begin_removal(0)
            job_id = await submit_drain(jobs.runner, 0)
            with trio.fail_after(60):
                assert (await jobs.runner.wait(job_id)).state is JobState.DONE
            await filesystem.sync()
    assert {*MOVED, *LET_GO} <= set(copies)
    for name in copies:
        for copy in both_ways(name, copies):
            drives, by_missing = await finish(copy)
            # The mark of a drive is as durable as any other change: the next commit's.
            assert drives == [1, 2, 3] or (name == "drain.begun" and drives == [0, 1, 2, 3])
            assert set(by_missing) == {0}


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.SECTORS])
@trio_test
async def test_a_power_cut_while_a_drive_is_replaced(tmp_path: Path, fate: Fate) -> None:
    """What was not synced is gone, and the machine has gone down; with the database as it was left, and without it."""
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        for file, data in FILES.items():
            await put(filesystem, file, data)
    power, chance = PoweredDrives(), random.Random(str(fate))
    copies: dict[str, Store] = {}

    def cut(name: str) -> None:
        if name not in copies:
            copies[name] = power.cut(store, tmp_path / name, fate, chance)

    with hooked(cut):
        async with store.open_with_jobs(opener=power) as (filesystem, jobs):
            await jobs.drives.replace(0, store.path / "drives" / "new")
            job_id = await submit_drain(jobs.runner, 0)
            with trio.fail_after(60):
                assert (await jobs.runner.wait(job_id)).state is JobState.DONE
    assert {"replace.made", "replace.listed", "replace.joined", *MOVED[1:], *LET_GO} <= set(copies)
    for name in copies:
        for copy in both_ways(name, copies):
            drives, by_missing = await finish(copy)
            assert drives == ([0, 1, 2] if name == "replace.made" else [1, 2, 3]), name
            assert set(by_missing) == {0}


@trio_test
async def test_a_drive_taken_out_of_the_file_by_hand_is_missed_and_its_shards_are_not_believed(
    tmp_path: Path,
) -> None:
    store = Store.make(tmp_path / "store", 2, 1, spare=1)
    async with store.open_with_jobs() as (filesystem, _):
        for file, data in FILES.items():
            await put(filesystem, file, data)
    path = store.path / "ciaosfs.toml"
    text = path.read_text()
    start = text.index("[[drive]]\nnumber = 2")
    path.write_text(text[:start] + text[text.index("[[drive]]\nnumber = 3") :])
    async with store.open_with_jobs() as (filesystem, _):
        assert await files_in(filesystem) == FILES
        assert filesystem.parts.meta.volumes.drive(2) is not None, "something refers to it"
    assert complaints(store.database) == []
    path.write_text(text)
    async with store.open_with_jobs() as (filesystem, _):
        assert await files_in(filesystem) == FILES


def test_every_point_of_this_kind_is_tried() -> None:
    kinds = ("add.", "replace.", "drain.")
    tried = {"add.made", "add.listed", "add.joined", "replace.made", "replace.listed", "replace.joined"}
    assert {name for name in POINTS if name.startswith(kinds)} <= tried | {*MOVED, *LET_GO}
