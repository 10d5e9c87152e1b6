"""Damage is found, by reads and by scrubs, and repaired without anybody asking."""

from __future__ import annotations

import logging
import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base.config import StoreConfig
from ciaosfs.base.errors import DriveGoneError
from ciaosfs.base.types import StripeKind
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.jobs.job import JobState, JobStatus
from ciaosfs.jobs.opening import OpenJobs
from tests.support.builders import Store, complaints, eventually, files_in, files_of, get, put
from tests.support.harm import HARMS, Harm, bad_shards, cut_off, drive_of, flip, lose_volume, records, zero

SMALL = random.Random(5).randbytes(5_000)
LARGE = random.Random(6).randbytes(1_500_000)
FILES = {b"small": SMALL, b"large": LARGE}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


async def filled(tmp_path: Path, spare: int = 0) -> Store:
    """A store with a replicated and a coded stripe, closed."""
    store = Store.make(tmp_path / "store", spare=spare)
    async with store.open() as filesystem:
        for name, data in FILES.items():
            await put(filesystem, name, data)
            await filesystem.sync()
    return store


async def scrub(jobs: OpenJobs) -> JobStatus:
    """Scrub everything, and wait until what was found is repaired."""
    status = await jobs.runner.wait(await jobs.scrubs.now(1.0))
    assert status.state is JobState.DONE, status.message
    await jobs.healer.settle()
    return status


def impatient(store: Store) -> StoreConfig:
    """Drives that are absent are given up at once."""
    return replace(store.config, job_share=1.0, repair_after_s=0.0)


def is_whole(filesystem: FileSystem) -> bool:
    return set(filesystem.parts.meta.stripes.count_by_missing()) <= {0}


@trio_test
async def test_a_scrub_of_a_sound_store_finds_nothing(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    async with store.open_with_jobs() as (filesystem, jobs):
        status = await scrub(jobs)
        assert status.message == "9 shards were read, 0 were damaged."
        assert status.done == status.total > len(LARGE)
        assert [job.kind for job in jobs.runner.jobs()] == ["scrub"]
        last = jobs.scrubs.last()
        assert last is not None and last.job_id == status.job_id
        assert await files_in(filesystem) == FILES


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
@trio_test
async def test_a_scrub_finds_and_repairs_what_no_read_has_met(tmp_path: Path, harm: Harm) -> None:
    """One parity and one data shard of each stripe, on drives that stay."""
    store = await filled(tmp_path)
    async with store.open() as filesystem:
        stripes = records(filesystem)
    for record in stripes:
        for place in (record.places[0], record.places[-1]):
            harm(store, record, place)
    async with store.open_with_jobs() as (filesystem, jobs):
        status = await scrub(jobs)
        if harm not in (
            lose_volume,
            cut_off,
        ):  # those are noticed when the store is opened, and repaired meanwhile
            assert ", 0 were damaged" not in status.message
        assert await bad_shards(filesystem) == []
        assert is_whole(filesystem)
        again = await scrub(jobs)
        assert ", 0 were damaged" in again.message
    assert complaints(store.database) == []
    for hidden in ((0, 1), (2, 3), (4, 5)):
        left = store.copy(tmp_path / f"without-{hidden}")
        for number in hidden:
            left.hide(number)
        assert await files_of(left) == FILES


@pytest.mark.parametrize("name", list(FILES))
@trio_test
async def test_a_read_that_meets_a_bad_shard_has_it_repaired(tmp_path: Path, name: bytes) -> None:
    store = await filled(tmp_path)
    async with store.open() as filesystem:
        stripes = records(filesystem)
    for record in stripes:
        zero(store, record, record.places[0])
    async with store.open_with_jobs() as (filesystem, jobs):
        assert await get(filesystem, name) == FILES[name]
        await eventually(lambda: any(job.kind == "repair" and job.is_finished for job in jobs.runner.jobs()))
        await jobs.healer.settle()
        assert len(await bad_shards(filesystem)) == len(stripes) - 1
        assert is_whole(filesystem)


@trio_test
async def test_what_a_stripe_lacks_that_no_commit_knows_yet_is_repaired_at_once(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store")
    store.hide(5)
    async with store.open_with_jobs(config=replace(store.config, job_share=1.0)) as (filesystem, jobs):
        await put(filesystem, b"large", LARGE)
        filesystem._flusher.launch_all()
        await eventually(lambda: not is_whole(filesystem))
        store.bring_back(5)
        await filesystem.parts.chunks.refresh_drives()
        await jobs.healer.settle()
        assert is_whole(filesystem)


@trio_test
async def test_two_that_mend_one_stripe_do_not_choose_the_same_drive(tmp_path: Path) -> None:
    """Repair and the removal of a drive may meet. There is room for one of the shards elsewhere."""
    store = await filled(tmp_path, spare=1)
    async with store.open() as filesystem:
        record = records(filesystem)[-1]
        avoid = [drive_of(store, place) for place in record.places[:2]]

        async def mend(index: int) -> None:
            with suppress(DriveGoneError):
                await filesystem.parts.mender.mend(record.stripe_id, [index], avoid=avoid)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(mend, 0)
            nursery.start_soon(mend, 1)
        await filesystem.sync()
        drives = [drive_of(store, place) for place in records(filesystem)[-1].places]
        assert len(set(drives)) == len(drives) == 6


@trio_test
async def test_a_bad_image_of_the_metadata_is_replaced_by_a_new_one(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    async with store.open() as filesystem:
        await filesystem.parts.imager.write()
        images = [record for record in records(filesystem) if record.kind is StripeKind.IMAGE]
    for place in images[0].places[:3]:
        flip(store, images[0], place)
    async with store.open_with_jobs() as (filesystem, jobs):
        await scrub(jobs)
        await eventually(lambda: filesystem.parts.imager.images_written == 1)
        assert jobs.healer.lost_stripes() == []
    store.lose_database()
    async with store.open() as filesystem:
        assert await files_in(filesystem) == FILES
        assert not any("cannot be read" in report for report in filesystem.status().reports)
    assert complaints(store.database) == []


@trio_test
async def test_damage_beyond_parity_is_left_as_it_is_unless_every_range_can_be_decoded(
    tmp_path: Path,
) -> None:
    store = await filled(tmp_path)
    async with store.open() as filesystem:
        _, coded = records(filesystem)
    for at, index in enumerate((0, 2, 5)):
        flip(store, coded, coded.places[index], 4096 + at * 100_000)
    async with store.open_with_jobs() as (filesystem, jobs):
        await scrub(jobs)
        assert await files_in(filesystem) == FILES
        assert coded.stripe_id not in [
            record.stripe_id
            for record in records(filesystem)
            if filesystem.parts.mender.is_live(record.stripe_id)
        ]
    async with store.open() as filesystem:
        coded = records(filesystem)[-1]
    for index in (0, 2, 5):
        zero(store, coded, coded.places[index])
    async with store.open_with_jobs() as (filesystem, jobs):
        await scrub(jobs)
        record = filesystem.parts.meta.stripes.load(coded.stripe_id)
        assert record == coded, "shards were forgotten although the stripe cannot be rebuilt"
        repairs = [job.message for job in jobs.runner.jobs() if job.kind == "repair"]
        assert "1 stripes have too few good shards" in repairs[-1]


@trio_test
async def test_what_was_written_without_a_drive_is_made_whole_when_it_returns(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    async with store.open_with_jobs() as (filesystem, jobs):
        store.hide(1)
        store.hide(4)
        await filesystem.parts.chunks.refresh_drives()
        await put(filesystem, b"degraded", LARGE[::-1])
        await put(filesystem, b"hot", SMALL[::-1])
        await filesystem.sync()
        assert not is_whole(filesystem)
        await jobs.healer.settle()
        assert not is_whole(filesystem), "made whole without drives to put it on"
        store.bring_back(1)
        store.bring_back(4)
        await filesystem.parts.chunks.refresh_drives()
        await jobs.healer.settle()
        assert is_whole(filesystem)
        assert await bad_shards(filesystem) == []
    assert complaints(store.database) == []


@trio_test
async def test_a_drive_that_is_away_for_a_moment_is_not_repaired_around_and_one_that_stays_away_is(
    tmp_path: Path,
) -> None:
    store = await filled(tmp_path, spare=1)
    async with store.open_with_jobs() as (filesystem, jobs):
        victim = drive_of(store, records(filesystem)[-1].places[0])
        store.hide(victim)
        await filesystem.parts.chunks.refresh_drives()
        before = records(filesystem)
        await jobs.healer.settle()
        assert records(filesystem) == before
    async with store.open_with_jobs(config=impatient(store)) as (filesystem, jobs):
        await jobs.healer.settle()
        assert records(filesystem) != before
        assert await bad_shards(filesystem) == []
    assert complaints(store.database) == []
    other = (victim + 1) % 7
    store.hide(other)
    assert await files_of(store) == FILES


@trio_test
async def test_a_drive_that_returns_with_old_content_is_not_believed_and_gets_what_it_missed(
    tmp_path: Path,
) -> None:
    """It comes back as it was before half of the files were written; nobody reads, nobody asks."""
    store = await filled(tmp_path)
    old = store.copy(tmp_path / "old")
    async with store.open() as filesystem:
        await put(filesystem, b"more", LARGE[::-1])
        await put(filesystem, b"hot", SMALL[::-1])
    async with store.open_with_jobs() as (filesystem, jobs):
        store.hide(2)
        await filesystem.parts.chunks.refresh_drives()
        await jobs.healer.look()
        verify = jobs.runner.unfinished("verify")
        assert verify is not None and verify.arguments == {"drive": 2}
        old.drive(2).rename(store.drive(2))
        await filesystem.parts.chunks.refresh_drives()
        await jobs.healer.look()
        status = await jobs.runner.wait(verify.job_id)
        assert ", 1 were damaged" in status.message, status.message
        await jobs.healer.settle()
        assert await bad_shards(filesystem) == []
        assert is_whole(filesystem)


@trio_test
async def test_a_drive_that_returns_while_the_store_is_closed_is_verified_when_it_is_opened(
    tmp_path: Path,
) -> None:
    store = await filled(tmp_path)
    store.hide(3)
    async with store.open_with_jobs() as (filesystem, jobs):
        await jobs.healer.look()
        assert jobs.runner.unfinished("verify") is not None
    store.bring_back(3)
    async with store.open() as filesystem:
        (place,) = [p for p in records(filesystem)[-1].places if drive_of(store, p) == 3]
        cut_off(store, records(filesystem)[-1], place)
    async with store.open_with_jobs() as (filesystem, jobs):
        await eventually(lambda: any(job.kind == "verify" and job.is_finished for job in jobs.runner.jobs()))
        await jobs.healer.settle()
        assert await bad_shards(filesystem) == []


@pytest.mark.parametrize("harm", [lose_volume, cut_off])
@trio_test
async def test_a_drive_that_got_older_content_while_nobody_looked_is_verified(
    tmp_path: Path, harm: Harm
) -> None:
    store = await filled(tmp_path)
    async with store.open() as filesystem:
        coded = records(filesystem)[-1]
    harm(store, coded, coded.places[3])
    async with store.open_with_jobs() as (filesystem, jobs):
        await eventually(lambda: any(job.kind == "verify" and job.is_finished for job in jobs.runner.jobs()))
        await jobs.healer.settle()
        assert await bad_shards(filesystem) == []
        assert len([job for job in jobs.runner.jobs() if job.kind == "verify"]) == 1
    async with store.open_with_jobs() as (filesystem, jobs):
        before = len(jobs.runner.jobs())
        await jobs.healer.look()
        assert len(jobs.runner.jobs()) == before, "a drive is verified although nothing is amiss"


@trio_test
async def test_a_scrub_goes_on_after_a_restart_where_it_was(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        for number in range(6):
            await put(filesystem, b"%d" % number, random.Random(number).randbytes(4_000_000))
        await filesystem.sync()
    async with store.open_with_jobs() as (filesystem, jobs):
        job_id = await jobs.runner.submit("scrub", {"share": 0.001})
        await eventually(lambda: jobs.runner.job(job_id).done > 0)
        before = jobs.runner.job(job_id).done
        assert before < jobs.runner.job(job_id).total
    async with store.open_with_jobs() as (filesystem, jobs):
        again = jobs.runner.job(job_id)
        assert (again.state, again.done) == (JobState.WAITING, before)
        jobs.runner.pause(job_id)
        jobs.runner.resume(job_id)
        await eventually(lambda: jobs.runner.job(job_id).done > before)


@trio_test
async def test_requests_go_on_while_everything_is_rebuilt(tmp_path: Path) -> None:
    """Files change, are deleted and read while every shard of a drive is rebuilt; at the end all is whole."""
    dice = random.Random(11)
    store = Store.make(tmp_path / "store", spare=1)
    expected = {b"%d" % number: dice.randbytes(dice.randrange(1, 600_000)) for number in range(24)}
    async with store.open() as filesystem:
        for name, data in expected.items():
            await put(filesystem, name, data)
            if dice.random() < 0.3:
                await filesystem.sync()
    store.hide(0)
    async with store.open_with_jobs(config=impatient(store)) as (filesystem, jobs):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(jobs.healer.settle)
            for _ in range(60):
                name = dice.choice(list(expected))
                if dice.random() < 0.5:
                    assert await get(filesystem, name) == expected[name]
                else:
                    expected[name] = dice.randbytes(dice.randrange(1, 300_000))
                    await put(filesystem, name, expected[name])
                if dice.random() < 0.2:
                    await filesystem.sync()
        await filesystem.sync()
        await jobs.healer.settle()
        assert await files_in(filesystem) == expected
        live = [r.stripe_id for r in records(filesystem) if filesystem.parts.mender.is_live(r.stripe_id)]
        assert not [bad for bad in await bad_shards(filesystem) if bad[0] in live]
    assert complaints(store.database) == []
    store.hide(5)
    assert await files_of(store) == expected


def test_the_harms_are_all_there() -> None:
    assert {flip, zero, lose_volume, cut_off} <= set(HARMS)
