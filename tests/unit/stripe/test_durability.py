"""A sync that returned covers everything written before it began, or says what is lost."""

from __future__ import annotations

import logging
import random
import threading
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test, wait_all_tasks_blocked

from ciaosfs.base.errors import DriveGoneError
from ciaosfs.base.types import StripeRecord
from ciaosfs.stripe.store import ChunkStore
from tests.support.chunks import Bench, some_bytes
from tests.support.faulty_drive import lose_power

CODED_BYTES = 300_000
PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def pending(bench: Bench) -> set[str]:
    """Names of volume files with unsynced writes, over all drives."""
    return {name for faults in bench.opener.faults.values() for name in faults.pending}


def states(chunks: ChunkStore) -> list[str]:
    return [str(status.state) for status in chunks.drive_statuses()]


class HeldSyncs:
    """Stops every sync of a drive inside its thread until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()

    def __call__(self, name: str) -> None:
        self.entered.set()
        assert self.release.wait(PATIENCE_S)

    async def wait_entered(self) -> None:
        assert await trio.to_thread.run_sync(self.entered.wait, PATIENCE_S)


@trio_test
async def test_a_sync_covers_every_volume_with_a_write_data_and_log_old_and_new(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    async with bench.store() as chunks:
        for sequence in range(1, 4):
            await chunks.write_stripe([some_bytes(CODED_BYTES)])
            await chunks.write_stripe([b"hot"])
            await chunks.append_commit(sequence, b"changes")
            assert pending(bench)
            await chunks.sync()
            assert pending(bench) == set()
            assert chunks.statistics().volumes_dirty == 0
    async with bench.store() as chunks:  # data volumes are continued, log volumes are new
        await chunks.write_stripe([some_bytes(CODED_BYTES)])
        await chunks.append_commit(4, b"changes")
        await chunks.sync()
        assert pending(bench) == set()


@trio_test
async def test_a_sync_with_nothing_written_touches_no_drive(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        await chunks.append_commit(1, b"changes")
        await chunks.sync()
        before = [len(faults.synced) for faults in bench.opener.faults.values()]
        await chunks.sync()
        assert [len(faults.synced) for faults in bench.opener.faults.values()] == before


@trio_test
async def test_what_is_written_while_a_sync_runs_belongs_to_the_next(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        await chunks.write_stripe([some_bytes(CODED_BYTES)])
        await chunks.append_commit(1, b"changes")
        held = HeldSyncs()
        for number in range(3):
            bench.opener[number].before_sync = held
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chunks.sync)
            await held.wait_entered()
            # Into the same volumes, whose fdatasync may have gone past these bytes already.
            await chunks.write_stripe([some_bytes(CODED_BYTES)])
            await chunks.append_commit(2, b"changes")
            held.release.set()
        assert pending(bench) != set()
        assert chunks.statistics().volumes_dirty == 3 + 2
        await chunks.sync()
        assert pending(bench) == set()


@trio_test
async def test_a_second_sync_does_not_return_before_the_one_that_has_the_work(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        await chunks.append_commit(1, b"changes")
        held = HeldSyncs()
        bench.opener[0].before_sync = held
        done: list[str] = []

        async def sync(name: str) -> None:
            await chunks.sync()
            done.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync, "first")
            await held.wait_entered()
            nursery.start_soon(sync, "second")
            await wait_all_tasks_blocked()
            assert done == []
            held.release.set()
        assert done == ["first", "second"]


@trio_test
async def test_a_sync_that_is_cancelled_still_runs_to_its_end(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        await chunks.append_commit(1, b"changes")
        with trio.move_on_after(0):
            await chunks.sync()
        assert pending(bench) == set()


@trio_test
async def test_a_drive_that_fails_a_sync_costs_its_shards_and_no_answer(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    async with bench.store() as chunks:
        before = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        await chunks.sync()
        payload = some_bytes(CODED_BYTES)
        record = await chunks.write_stripe([payload])
        bench.opener[5].syncs_left = 0
        await chunks.sync()
        index = bench.drives_of(record).index(5)
        assert [(stripe, shard) for stripe, shard, _ in bench.damage] == [(record.stripe_id, index)]
        assert "sync" in bench.damage[0][2]
        assert states(chunks)[5] == "failing"
        assert before.stripe_id not in {stripe for stripe, _, _ in bench.damage}, "it was synced in time"
        after = await chunks.write_stripe([payload])
        assert 5 not in bench.drives_of(after) and after.missing_count == 1
        await chunks.sync()
        assert bytes(await chunks.read(record, 0, len(payload))) == payload


@trio_test
async def test_more_failed_syncs_than_parity_is_a_loss_and_stays_one(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(CODED_BYTES)])
        bench.opener[0].syncs_left = bench.opener[2].syncs_left = 0
        with pytest.raises(DriveGoneError, match=str(record.stripe_id)):
            await chunks.sync()
        bench.opener[0].syncs_left = bench.opener[2].syncs_left = None
        with pytest.raises(DriveGoneError):
            await chunks.sync()
    assert {shard for _, shard, _ in bench.damage} == {
        index for index, number in enumerate(bench.drives_of(record)) if number in (0, 2)
    }


@trio_test
async def test_a_stripe_finished_while_its_drive_failed_a_sync_does_not_count_that_shard(
    tmp_path: Path,
) -> None:
    """The first drive's shard is written and its sync fails while the others' are still being written."""
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        await chunks.write_stripe([some_bytes(CODED_BYTES)])
        await chunks.sync()
        reached, go_on = threading.Event(), threading.Event()
        writes = []

        def hold(name: str, offset: int) -> None:
            writes.append(name)
            if len(writes) == 3:
                reached.set()
                assert go_on.wait(PATIENCE_S)

        for number in range(3):
            bench.opener[number].before_write = hold
        records = []

        async def write() -> None:
            records.append(await chunks.write_stripe([some_bytes(CODED_BYTES)]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            assert await trio.to_thread.run_sync(reached.wait, PATIENCE_S)
            # Another stripe cannot be written meanwhile: its volumes are made dirty by hand.
            failing = next(n for n in range(3) if bench.opener[n].pending)
            volume = chunks._appenders.current(failing, next(k for _, k in chunks._appenders._current))
            assert volume is not None
            chunks._durability.wrote(volume, None, 0)
            bench.opener[failing].syncs_left = 0
            await chunks.sync()
            go_on.set()
        assert failing not in bench.drives_of(records[0])
        assert records[0].missing_count == 1


@trio_test
async def test_a_commit_whose_copy_failed_gets_another_on_another_drive(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1, spare=1)
    async with bench.store() as chunks:
        await chunks.append_commit(1, b"first")
        await chunks.sync()
        await chunks.append_commit(2, b"second")
        bench.opener[0].syncs_left = 0
        await chunks.sync()
        copies = {(entry.sequence, entry.drive_number) for entry in chunks.scan_log(0)}
        assert {(1, 0), (1, 1), (2, 1), (2, 2)} <= copies
        assert pending(bench) == {name for name in bench.opener[0].pending}, "the new copy is synced too"
        bench.opener[1].syncs_left = 0
        await chunks.append_commit(3, b"third")
        await chunks.sync()
        assert {(3, 2), (3, 3)} <= {(entry.sequence, entry.drive_number) for entry in chunks.scan_log(0)}


@trio_test
async def test_a_commit_with_no_good_copy_left_is_lost(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 1, 1)
    async with bench.store() as chunks:
        await chunks.append_commit(1, b"first")
        bench.opener[0].syncs_left = bench.opener[1].syncs_left = 0
        with pytest.raises(DriveGoneError, match="commit 1"):
            await chunks.sync()


@trio_test
async def test_with_no_other_drive_a_commit_with_one_copy_is_as_good_as_it_can_be(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 1, 1)
    async with bench.store() as chunks:
        await chunks.append_commit(1, b"first")
        bench.opener[0].syncs_left = 0
        await chunks.sync()
        await chunks.append_commit(2, b"second")
        await chunks.sync()
    bench.hide(0)
    async with bench.store() as chunks:
        assert {entry.sequence for entry in chunks.scan_log(0)} == {1, 2}


@pytest.mark.parametrize("seed", range(12))
@trio_test
async def test_after_a_power_cut_everything_synced_is_there_whatever_m_drives_do(
    tmp_path: Path, seed: int
) -> None:
    """Random writes, commits and syncs; the power goes; then m drives are lost as well."""
    dice = random.Random(seed)
    bench = Bench.make(tmp_path, *dice.choice([(1, 1), (2, 1), (4, 2)]))
    written: list[tuple[StripeRecord, bytes]] = []
    commits: dict[int, bytes] = {}
    safe_stripes: list[tuple[StripeRecord, bytes]] = []
    safe_commits: dict[int, bytes] = {}
    for _ in range(dice.randint(1, 3)):
        written, alive = safe_stripes[:], dict(safe_commits)
        async with bench.store() as chunks:
            for _ in range(dice.randint(1, 25)):
                step = dice.random()
                if step < 0.5:
                    payload = some_bytes(dice.choice([100, 20_000, 140_000, CODED_BYTES]))
                    written.append((await chunks.write_stripe([payload]), payload))
                elif step < 0.8:
                    sequence = len(commits) + 1
                    alive[sequence] = commits[sequence] = some_bytes(dice.choice([10, 700, 90_000]))
                    await chunks.append_commit(sequence, commits[sequence])
                else:
                    await chunks.sync()
                    safe_stripes, safe_commits = written[:], dict(alive)
        for drive in bench.drives:
            lose_power(drive.path, bench.opener[drive.number], dice)
    for number in dice.sample(range(len(bench.drives)), bench.parity_count):
        bench.hide(number)
    async with bench.store() as chunks:
        found: dict[int, set[bytes]] = {}
        for entry in chunks.scan_log(0):
            found.setdefault(entry.sequence, set()).add(entry.payload())
        for sequence, payload in safe_commits.items():
            assert found[sequence] == {payload}
        for sequence, payloads in found.items():
            assert payloads == {commits[sequence]}, "what is found was appended"
        for record, payload in safe_stripes:
            assert bytes(await chunks.read(record, 0, len(payload))) == payload
        for record, payload in written:
            if await chunks.is_readable(record):
                assert bytes(await chunks.read(record, 0, len(payload))) == payload
