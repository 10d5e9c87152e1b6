"""Reads beside drives that lag or hang: the same bytes, without waiting for them, and without doubling the load."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base import limits
from ciaosfs.base.errors import DriveGoneError
from ciaosfs.base.types import StripeRecord
from ciaosfs.stripe.store import ChunkStore
from tests.support.builders import eventually
from tests.support.chunks import Bench, flip_in_payload, some_bytes
from tests.support.slow_drive import SlowDrives

CODED_BYTES = 300_000
PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@pytest.fixture
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DRIVE_DEADLINE_S", 0.5)
    monkeypatch.setattr(limits, "DRIVE_DEADLINE_S_MAX", 1.0)
    monkeypatch.setattr(limits, "DRIVE_HANGING_S", 0.1)
    monkeypatch.setattr(limits, "WRITE_OFF_S", 0.1)


@asynccontextmanager
async def slow_store(bench: Bench, drives: SlowDrives) -> AsyncIterator[ChunkStore]:
    """Whatever hangs is let go at the end, so that threads can be joined and files closed."""
    async with bench.store(drives) as chunks:
        try:
            with trio.fail_after(PATIENCE_S):
                yield chunks
        finally:
            drives.release()


async def written(chunks: ChunkStore, count: int) -> list[tuple[StripeRecord, bytes]]:
    found = []
    for _ in range(count):
        payload = some_bytes(CODED_BYTES)
        found.append((await chunks.write_stripe([payload]), payload))
    return found


async def read_everything(chunks: ChunkStore, stripes: Sequence[tuple[StripeRecord, bytes]]) -> None:
    for record, payload in stripes:
        for start in range(0, len(payload), 65_536):
            part = min(65_536, len(payload) - start)
            assert bytes(await chunks.read(record, start, part)) == payload[start : start + part]


@pytest.mark.parametrize(("data_count", "parity_count"), [(1, 1), (2, 1), (4, 2), (6, 3)])
@trio_test
async def test_with_m_drives_hanging_in_read_for_ever_every_read_answers(
    tmp_path: Path, data_count: int, parity_count: int
) -> None:
    bench, drives = Bench.make(tmp_path, data_count, parity_count), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        stripes = await written(chunks, 8)
        for number in range(parity_count):
            drives[number].hang("read", "open")
        await read_everything(chunks, stripes)
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(read_everything, chunks, stripes)
        assert all(drives[n].stuck <= limits.DRIVE_READS_MAX for n in range(parity_count))
        reads = chunks.statistics().reads
        assert reads.hedges_won > 0 and reads.rounds > 0
        assert bench.damage == [], "slow is not damaged"


@trio_test
async def test_a_drive_that_answers_again_is_read_again(tmp_path: Path) -> None:
    bench, drives = Bench.make(tmp_path, 2, 1), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        stripes = await written(chunks, 8)
        drives[0].hang("read")
        await read_everything(chunks, stripes)
        assert chunks.statistics().calls.lagging == (0,)
        drives.release()
        while chunks.statistics().calls.lagging:
            await read_everything(chunks, stripes)
        before = chunks.statistics().reads
        await read_everything(chunks, stripes)
        assert chunks.statistics().reads.rounds == before.rounds


@trio_test
async def test_a_disk_subsystem_that_is_slow_as_a_whole_is_not_asked_for_much_more(tmp_path: Path) -> None:
    bench, drives = Bench.make(tmp_path, 4, 2), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        stripes = await written(chunks, 4)
        await read_everything(chunks, stripes)
        for number in range(6):
            drives[number].delay_s["read"] = 0.05
            drives[number].calls["read"] = 0
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for stripe in stripes:
                    nursery.start_soon(read_everything, chunks, [stripe])
        statistics = chunks.statistics().reads
        reads = 3 * 4 * -(-CODED_BYTES // 65_536)
        assert statistics.hedges <= limits.HEDGES_BURST_MAX + limits.HEDGE_SHARE_MAX * reads + 1
        assert statistics.rounds <= reads // 4, "no single drive lags behind the others for long"


@trio_test
async def test_the_late_answer_is_taken_when_the_others_are_no_good(tmp_path: Path) -> None:
    """A hedge that finds bad shards does not spoil the read: the drive that lags still has the bytes."""
    bench, drives = Bench.make(tmp_path, 2, 1), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        ((record, payload),) = await written(chunks, 1)
        flip_in_payload(bench, record, record.places[2])
        lagging = drives[bench.drive_of(record.places[0])]
        lagging.hang("read")
        answers: list[bytes] = []

        async def read() -> None:
            answers.append(bytes(await chunks.read(record, 0, 20_000)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await eventually(lambda: bool(bench.damage))
            assert answers == []
            lagging.release()
        assert answers == [payload[:20_000]]
        assert {shard for _, shard, _ in bench.damage} == {2}


@trio_test
async def test_more_than_m_drives_that_hang_are_an_error_in_the_end_and_nothing_is_called_lost(
    tmp_path: Path, short_deadlines: None
) -> None:
    bench, drives = Bench.make(tmp_path, 2, 1), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        ((record, payload),) = await written(chunks, 1)
        for place in record.places[:2]:
            drives[bench.drive_of(place)].hang("read")
        with pytest.raises(DriveGoneError):
            await chunks.read(record, 0, 100)
        with pytest.raises(DriveGoneError):
            await chunks.read(record, record.shard_bytes, 100)
        assert bench.damage == []
        drives.release()
        await eventually(lambda: not chunks.statistics().calls.hanging)
        assert bytes(await chunks.read(record, 0, len(payload))) == payload


@trio_test
async def test_a_read_that_is_cancelled_waits_for_no_drive(tmp_path: Path) -> None:
    bench, drives = Bench.make(tmp_path, 1, 1), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        ((record, _),) = await written(chunks, 1)
        for number in range(2):
            drives[number].hang("read")
        with trio.move_on_after(0.05) as scope:
            await chunks.read(record, 0, 100)
        assert scope.cancelled_caught


@trio_test
async def test_a_late_answer_after_the_stripe_is_gone_does_no_harm(tmp_path: Path) -> None:
    """The loser of a race reads zeros where a discarded shard was: nobody is told of damage."""
    bench, drives = Bench.make(tmp_path, 2, 1), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        ((record, payload), (other, _)) = await written(chunks, 2)
        lagging = drives[bench.drive_of(record.places[0])]
        lagging.hang("read")
        assert bytes(await chunks.read(record, 0, 100)) == payload[:100]
        await chunks.discard([record])
        lagging.release()
        await eventually(lambda: lagging.stuck == 0)
        assert bytes(await chunks.read(other, 0, 1))
        assert bench.damage == []


@trio_test
async def test_drives_that_lag_in_turn_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any m of them, also those that were to stand in for others, and with no budget left for hedges."""
    monkeypatch.setattr(limits, "READ_LATE_S_MAX", 0.05)
    monkeypatch.setattr(limits, "DRIVE_HANGING_S", 0.1)
    bench, drives = Bench.make(tmp_path, 3, 2), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        stripes = await written(chunks, 2)
        while chunks._calls.budget.take():
            pass
        for pair in itertools.islice(itertools.combinations(range(5), 2), 0, None, 3):
            for number in pair:
                drives[number].hang("read")
            await read_everything(chunks, stripes)
            drives.release()
            await eventually(lambda: all(drives[n].stuck == 0 for n in range(5)))


@trio_test
async def test_few_threads_stay_behind_in_a_drive_that_never_answers(
    tmp_path: Path, short_deadlines: None
) -> None:
    bench, drives = Bench.make(tmp_path, 4, 2), SlowDrives()
    async with slow_store(bench, drives) as chunks:
        stripes = await written(chunks, 6)
        drives[3].hang("read")
        await read_everything(chunks, stripes)
        await eventually(lambda: chunks.statistics().calls.hanging == (3,))
        before = threading.active_count()
        for _ in range(5):
            await read_everything(chunks, stripes)
        assert threading.active_count() <= before + 2
        assert drives[3].stuck <= limits.DRIVE_READS_MAX
        assert [str(status.state) for status in chunks.drive_statuses()][3] == "failing"
