"""What a scrub does beside verifying shards: copies of commits that were lost, and needles that nobody needs."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import apsw
import pytest
from trio.testing import trio_test

from ciaosfs.base.types import StripeRecord
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.drive.local import open_drive
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.jobs import logcheck
from ciaosfs.jobs import scrub as scrubbing
from ciaosfs.jobs.job import JobPostponedError
from ciaosfs.jobs.opening import OpenJobs
from ciaosfs.jobs.scrub import ScrubJob
from ciaosfs.jobs.suspects import Suspects
from ciaosfs.volume.files import volume_id_of
from ciaosfs.volume.scan import scan_needles
from tests.support.builders import Store, complaints, eventually, files_in, files_of, put, remove
from tests.support.harm import drive_of, flip, needle_of, records

LARGE = random.Random(6).randbytes(1_500_000)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


class Noted:
    """A job's progress that keeps every cursor, and begins at one."""

    def __init__(self, cursor: str = "") -> None:
        self.cursor = cursor
        self.done = 0
        self.cursors: list[str] = []

    def note(self, *, cursor: str | None = None, **_: object) -> None:
        if cursor:
            self.cursors.append(cursor)

    async def rest(self, share: float | None = None) -> None:
        pass


@pytest.mark.parametrize("kept_max", [scrubbing.SUSPECTS_KEPT_MAX, 1])
@trio_test
async def test_damage_found_before_a_restart_is_suspected_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_max: int
) -> None:
    """The scrub goes on where it was, and its suspects were in the memory of a daemon that is gone."""
    monkeypatch.setattr(scrubbing, "SUSPECTS_KEPT_MAX", kept_max)
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        for name in (b"a", b"b", b"c"):
            await put(filesystem, name, LARGE)
            await filesystem.sync()
        harmed = records(filesystem)
    for record in harmed:
        flip(store, record, record.places[0])
    async with store.open() as filesystem:
        found, noted = Suspects(), Noted()
        await ScrubJob(filesystem.parts, found, share=1.0).run(noted)
        assert len(found) == len(harmed)
        for cursor in noted.cursors:  # the daemon died right after it was remembered
            found = Suspects()
            await ScrubJob(filesystem.parts, found, share=1.0).run(Noted(cursor))
            assert len(found) == len(harmed), cursor


class Full:
    """A cursor on a disk that is full: nothing can be committed."""

    def __init__(self, inner: apsw.Cursor) -> None:
        self.inner = inner

    def execute(self, statement: str) -> apsw.Cursor:
        if statement == "COMMIT":
            raise apsw.FullError("the disk is full, says the test")
        return self.inner.execute(statement)


@trio_test
async def test_what_the_database_could_not_take_is_not_passed_over(tmp_path: Path) -> None:
    """Its rows are in memory, and in the log, but not where a scrub looks for what is to be verified."""
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        database: Any = filesystem.parts.meta.database
        await filesystem.sync()
        control, database._control = database._control, Full(database._control)
        await put(filesystem, b"a", LARGE)
        await filesystem.sync()
        assert database.unsaved_commits()
        [harmed] = records(filesystem)
        flip(store, harmed, harmed.places[0])
        found = Suspects()
        with pytest.raises(JobPostponedError, match="database cannot be written"):
            await ScrubJob(filesystem.parts, found, share=1.0).run(Noted())
        database._control = control
        await ScrubJob(filesystem.parts, found, share=1.0).run(Noted())
        assert len(found) == 1


async def scrub(jobs: OpenJobs) -> str:
    status = await jobs.runner.wait(await jobs.scrubs.now(1.0))
    assert status.state == "done", status.message
    await jobs.healer.settle()
    return status.message


def commit_copies(filesystem: FileSystem) -> dict[int, set[int]]:
    """The drives with a whole copy of each commit."""
    found: dict[int, set[int]] = {}
    for entry in filesystem.parts.chunks.scan_log(0):
        if entry.kind is NeedleKind.COMMIT:
            found.setdefault(entry.sequence, set()).add(entry.drive_number)
    return found


def harm_commits(store: Store, number: int, wanted: set[int]) -> int:
    """Flip a byte in each of these commits on one drive; how many were there."""
    harmed = 0
    drive = open_drive(str(store.drive(number)), store.config.store_id, number)
    for name in drive.names():
        file = drive.open(name, writable=True)
        heads = list(scan_needles(file, store.config.store_id, volume_id_of(name)))
        for head in heads:
            if head.kind is NeedleKind.COMMIT and head.stripe_id in wanted:
                at = head.offset + head.payload_start + head.shard_bytes // 2
                file.write(at, [bytes([file.read(at, 1)[0] ^ 1])])
                harmed += 1
        file.close()
    drive.close()
    return harmed


async def with_commits(tmp_path: Path, count: int) -> Store:
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        for number in range(count):
            await put(filesystem, b"%d" % number, b"%d" % number)
            await filesystem.sync()
    return store


@trio_test
async def test_damaged_copies_of_commits_are_written_again(tmp_path: Path) -> None:
    store = await with_commits(tmp_path, 6)
    async with store.open() as filesystem:
        holders = commit_copies(filesystem)[3]
    for number in sorted(holders)[:2]:
        assert harm_commits(store, number, {3}) == 1
    async with store.open_with_jobs() as (filesystem, jobs):
        assert len(commit_copies(filesystem)[3]) == 1
        assert "1 commits had lost copies" in await scrub(jobs)
        assert len(commit_copies(filesystem)[3]) >= 3
        assert "commits" not in await scrub(jobs)
    left = store.copy(tmp_path / "left")
    left.lose_database()
    for number in sorted(holders)[2:]:
        left.hide(number)
    assert await files_of(left) == {b"%d" % number: b"%d" % number for number in range(6)}


@pytest.mark.parametrize("harm", ["many", "all copies of one"])
@trio_test
async def test_commits_that_are_lost_or_many_make_a_new_image(tmp_path: Path, harm: str) -> None:
    count = logcheck.COPIED_COMMITS_MAX + 4
    store = await with_commits(tmp_path, count)
    async with store.open() as filesystem:
        holders = commit_copies(filesystem)[3]
    wanted = {3} if harm == "all copies of one" else set(range(1, count + 1))
    for number in sorted(holders) if harm == "all copies of one" else sorted(holders)[:1]:
        assert harm_commits(store, number, wanted) == len(wanted)
    async with store.open_with_jobs() as (filesystem, jobs):
        assert "a new image" in await scrub(jobs)
        await eventually(lambda: bool(filesystem.parts.meta.images.all()))
        assert "image" not in await scrub(jobs)
    left = store.copy(tmp_path / "left")
    left.lose_database()
    assert len(await files_of(left)) == count


def is_punched(store: Store, record: StripeRecord) -> bool:
    return all(not needle_of(store, record, place).strip(b"\0") for place in record.places)


@trio_test
async def test_stripes_that_died_while_their_drive_was_away_are_swept_from_it(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store")
    async with store.open_with_jobs() as (filesystem, jobs):
        await put(filesystem, b"kept", LARGE)
        await filesystem.sync()
        await put(filesystem, b"gone", LARGE[::-1])
        await filesystem.sync()
        before = records(filesystem)
        store.hide(2)
        await filesystem.parts.chunks.refresh_drives()
        await jobs.healer.look()
        await remove(filesystem, b"gone")
        await filesystem.sync()
        await eventually(lambda: len(records(filesystem)) < len(before))
        await filesystem.parts.reclaimer.wait_discarded()
        live = {record.stripe_id for record in records(filesystem)}
        (dead,) = [record for record in before if record.stripe_id not in live]
        store.bring_back(2)
        await filesystem.parts.chunks.refresh_drives()
        assert not is_punched(store, dead), "nothing was left to be swept"
        await jobs.healer.look()
        await eventually(lambda: any(job.kind == "verify" and job.is_finished for job in jobs.runner.jobs()))
        assert is_punched(store, dead)
        (verified,) = [job for job in jobs.runner.jobs() if job.kind == "verify"]
        assert "1 needles that nothing refers to were given back" in verified.message
        assert await files_in(filesystem) == {b"kept": LARGE}
    assert complaints(store.database) == []


@trio_test
async def test_stripes_of_a_commit_that_was_never_made_are_swept(tmp_path: Path) -> None:
    """A kill before the commit leaves needles that no metadata knows; what is under way when a scrub runs stays."""
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        await put(filesystem, b"kept", LARGE)
        await filesystem.sync()
        orphan = await filesystem.parts.chunks.write_stripe([LARGE])
        killed = store.copy(tmp_path / "killed")
    assert not is_punched(killed, orphan)
    async with killed.open_with_jobs() as (filesystem, jobs):
        under_way = await filesystem.parts.chunks.write_stripe([LARGE])
        assert f"{len(orphan.places)} needles" in await scrub(jobs)
        assert is_punched(killed, orphan)
        assert await filesystem.parts.chunks.damaged_shards(under_way) == []
        filesystem.parts.meta.stripes.insert(under_way)
        assert await files_in(filesystem) == {b"kept": LARGE}


@trio_test
async def test_a_shard_rebuilt_elsewhere_leaves_nothing_on_the_drive_that_returns(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", spare=1)
    async with store.open_with_jobs() as (filesystem, jobs):
        await put(filesystem, b"kept", LARGE)
        await filesystem.sync()
        (before,) = records(filesystem)
        victim = drive_of(store, before.places[1])
        store.hide(victim)
        await filesystem.parts.chunks.refresh_drives()
        await jobs.healer.look()
        assert await filesystem.parts.mender.mend(before.stripe_id, [1]) == 1
        await filesystem.sync()
        await filesystem.parts.reclaimer.wait_discarded()
        store.bring_back(victim)
        await filesystem.parts.chunks.refresh_drives()
        await jobs.healer.look()
        await eventually(lambda: any(job.kind == "verify" and job.is_finished for job in jobs.runner.jobs()))
        assert not needle_of(store, before, before.places[1]).strip(b"\0")
        assert await files_in(filesystem) == {b"kept": LARGE}
