"""What is read ahead into memory: the same bytes, or none and the read finds out why."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base import clock, limits
from ciaosfs.base.types import StripeRecord
from ciaosfs.drive.localfile import LocalFile
from ciaosfs.stripe import prefetching
from ciaosfs.stripe.prefetching import PIECE_BYTES, PIECES_MAX, READER_PIECES_MIN
from ciaosfs.stripe.store import ChunkStore
from tests.support.chunks import Bench, flip_in_payload, some_bytes
from tests.support.faulty_drive import FaultyFile

PAYLOAD_BYTES = limits.STRIPE_PAYLOAD_BYTES_MAX


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


async def check(chunks: ChunkStore, record: StripeRecord, payload: bytes, taken: int) -> None:
    """All of it in pieces; so many of these come from what was read ahead."""
    before = chunks.prefetcher.taken
    for start in range(0, len(payload), PIECE_BYTES):
        found = await chunks.read(record, start, PIECE_BYTES)
        assert (bytes(found) == payload[start : start + PIECE_BYTES]) is True
    assert chunks.prefetcher.taken - before == taken


async def ended(chunks: ChunkStore) -> None:
    """No piece is under way any more."""
    with trio.fail_after(10):
        while any(piece.is_under_way for piece in chunks.prefetcher._pieces.values()):  # noqa: ASYNC110
            await trio.sleep(0.001)


@pytest.mark.parametrize(("data_count", "parity_count"), [(1, 1), (2, 1), (4, 2), (6, 3)])
@trio_test
async def test_what_was_read_ahead_is_what_was_written(
    tmp_path: Path, data_count: int, parity_count: int
) -> None:
    bench = Bench.make(tmp_path, data_count, parity_count)
    payload = some_bytes(PAYLOAD_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
        await chunks.sync()
    async with bench.store() as chunks:
        for is_awaited in (True, False):
            assert chunks.prefetcher.begin("reader", record, 0, PAYLOAD_BYTES) == PAYLOAD_BYTES
            if is_awaited:
                await ended(chunks)
            before = chunks.prefetcher.taken
            for start in range(0, PAYLOAD_BYTES, PIECE_BYTES):
                found = await chunks.read(record, start, PIECE_BYTES)
                assert (bytes(found) == payload[start : start + PIECE_BYTES]) is True
            if is_awaited:  # else a piece may be late, and is not waited for
                assert chunks.prefetcher.taken - before >= PAYLOAD_BYTES // PIECE_BYTES
                assert chunks.prefetcher.kept == 0, "what is read is let go of"
        await ended(chunks)
        chunks.prefetcher.forget("reader")
        await check(chunks, record, payload, 0)


@trio_test
async def test_reads_that_do_not_keep_to_pieces_find_them_all(tmp_path: Path) -> None:
    """As those of a file whose stripes begin anywhere."""
    bench = Bench.make(tmp_path, 2, 1)
    payload = some_bytes(PAYLOAD_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
        chunks.prefetcher.begin("reader", record, 0, PAYLOAD_BYTES)
        await ended(chunks)
        before = chunks._reader.statistics().reads, chunks.prefetcher.taken
        for start in range(0, PAYLOAD_BYTES, 700_001):
            found = await chunks.read(record, start, min(700_001, PAYLOAD_BYTES - start))
            assert (bytes(found) == payload[start : start + 700_001]) is True
        assert chunks._reader.statistics().reads - before[0] == 6
        assert chunks.prefetcher.taken - before[1] == 6 + 3, "three of the reads need two pieces"
        assert chunks.prefetcher.kept == 0


@trio_test
async def test_two_readers_at_the_same_place_both_find_what_was_read_ahead(tmp_path: Path) -> None:
    """Read from the drives once."""
    bench = Bench.make(tmp_path, 2, 1)
    payload = some_bytes(PAYLOAD_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
        prefetcher = chunks.prefetcher
        for reader in ("one", "two"):
            assert prefetcher.begin(reader, record, 0, PAYLOAD_BYTES) == PAYLOAD_BYTES
        await ended(chunks)
        assert prefetcher.kept == 4
        await check(chunks, record, payload, 4)
        assert prefetcher.kept == 4
        await check(chunks, record, payload, 4)
        assert prefetcher.kept == 0
        assert not prefetcher._readers


@trio_test
async def test_a_piece_that_two_want_goes_with_the_second_of_them(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(PAYLOAD_BYTES)])
        prefetcher = chunks.prefetcher
        for first, second in (("one", "two"), ("two", "one")):
            prefetcher.begin("one", record, 0, PAYLOAD_BYTES)
            prefetcher.begin("two", record, PIECE_BYTES, PAYLOAD_BYTES)
            await ended(chunks)
            prefetcher.forget(first)
            assert prefetcher.kept == (3 if first == "one" else 4)
            prefetcher.passed(second, 2 * PIECE_BYTES)
            assert prefetcher.kept == 2
            prefetcher.forget(second)
            assert prefetcher.kept == 0
            assert not prefetcher._readers


@trio_test
async def test_what_lies_behind_the_reader_is_let_go_of(tmp_path: Path) -> None:
    """Though nobody took its last byte. What is wanted further on is kept, also when it is the rest of a piece."""
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(PAYLOAD_BYTES)])
        prefetcher = chunks.prefetcher
        middle, shift = PIECE_BYTES + PIECE_BYTES // 2, -10 * PIECE_BYTES
        prefetcher.begin("reader", record, 0, middle, shift)
        prefetcher.begin("reader", record, middle, PAYLOAD_BYTES, shift)
        await ended(chunks)
        for position, kept in ((10, 4), (11, 3), (11.5, 3), (12, 2), (14, 0)):
            prefetcher.passed("reader", int(position * PIECE_BYTES))
            prefetcher.passed("another", 1 << 40)
            assert prefetcher.kept == kept


@trio_test
async def test_what_nobody_came_for_is_counted(tmp_path: Path) -> None:
    """Not what was read in part, nor what failed."""
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(PAYLOAD_BYTES)])
    flip_in_payload(bench, record, record.places[1])
    async with bench.store() as chunks:
        chunks.prefetcher.begin("reader", record, 0, PAYLOAD_BYTES)
        await ended(chunks)
        await chunks.read(record, 0, 4096)
        chunks.prefetcher.forget("reader")
        reads = chunks.statistics().reads
        assert (reads.ahead_taken, reads.ahead_wasted) == (1, 1)


@trio_test
async def test_a_damaged_piece_is_decoded_and_reported_by_who_reads_it(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    payload = some_bytes(PAYLOAD_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
    flip_in_payload(bench, record, record.places[1])
    async with bench.store() as chunks:
        chunks.prefetcher.begin("reader", record, 0, PAYLOAD_BYTES)
        await ended(chunks)
        assert bench.damage == []
        await check(chunks, record, payload, 3)
    assert {shard for _, shard, _ in bench.damage} == {1}


@trio_test
async def test_what_lies_on_a_drive_that_is_away_is_passed_over(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    payload = some_bytes(PAYLOAD_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
    drive = bench.drives[bench.drive_of(record.places[2])]
    drive.path.rename(tmp_path / "away")
    async with bench.store() as chunks:
        assert chunks.prefetcher.begin("reader", record, 0, PAYLOAD_BYTES) == PAYLOAD_BYTES
        await ended(chunks)
        await check(chunks, record, payload, 3)


@trio_test
async def test_a_drive_that_knows_nothing_but_the_page_cache_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    payload = some_bytes(PAYLOAD_BYTES)
    asked: list[int] = []

    def refuse(file: LocalFile, offset: int, into: memoryview) -> None:
        asked.append(offset)

    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
    monkeypatch.setattr("tests.support.faulty_drive.FaultyFile.read_into", refuse)
    async with bench.store() as chunks:
        chunks.prefetcher.begin("reader", record, 0, PAYLOAD_BYTES)
        await ended(chunks)
        assert len(asked) == 4
        assert chunks.prefetcher.begin("reader", record, 0, PAYLOAD_BYTES) is None
        await check(chunks, record, payload, 0)
        assert len(asked) == 4


@trio_test
async def test_shards_that_do_not_lie_on_pages_do_not_make_their_drives_refused(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 10, 2)
    async with bench.store() as chunks:
        small = await chunks.write_stripe([some_bytes(10 * 56 * limits.KIB)])
        large = await chunks.write_stripe([some_bytes(PAYLOAD_BYTES)])
        assert small.shard_bytes % limits.NEEDLE_ALIGN_LARGE == 0, "only its place is in the way"
        assert chunks.prefetcher.begin("reader", small, 0, small.payload_bytes) is None
        await ended(chunks)
        assert chunks.prefetcher.begin("reader", large, 0, PAYLOAD_BYTES) == PAYLOAD_BYTES
        await ended(chunks)


@pytest.mark.parametrize("by", ["coming back", "waiting"])
@trio_test
async def test_a_drive_that_refused_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    bench = Bench.make(tmp_path, 1, 1)
    payload = some_bytes(PIECE_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload], coded=True)
        number = bench.drive_of(record.places[0])
        with monkeypatch.context() as patch:
            patch.setattr(FaultyFile, "read_into", lambda *_: None)
            chunks.prefetcher.begin("reader", record, 0, PIECE_BYTES)
            await ended(chunks)
        assert chunks.prefetcher.begin("reader", record, 0, PIECE_BYTES) is None
        if by == "coming back":
            bench.hide(number)
            await chunks.refresh_drives()
            bench.bring_back(number)
            await chunks.refresh_drives()
        else:
            now_s = clock.monotonic_s() + prefetching.REFUSED_S
            monkeypatch.setattr(clock, "monotonic_s", lambda: now_s)
        assert chunks.prefetcher.begin("reader", record, 0, PIECE_BYTES) == PIECE_BYTES
        await ended(chunks)
        assert chunks.prefetcher.kept == 1


@trio_test
async def test_room_is_shared_out_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    payload = some_bytes(PAYLOAD_BYTES)
    readers = PIECES_MAX // READER_PIECES_MIN
    async with bench.store() as chunks:
        records = [await chunks.write_stripe([payload]) for _ in range(readers + 1)]
        monkeypatch.setattr(prefetching, "LANE_READS_MAX", 1000)
        for record in records[:readers]:
            assert chunks.prefetcher.begin(record.stripe_id, record, 0, PAYLOAD_BYTES) == PAYLOAD_BYTES
        assert chunks.prefetcher.begin("one more", records[readers], 0, PAYLOAD_BYTES) is None
        assert chunks.prefetcher.begin(records[0].stripe_id, records[readers], 0, PAYLOAD_BYTES) == 0
        assert chunks.prefetcher.kept == PIECES_MAX
        await ended(chunks)
        chunks.prefetcher.forget(records[0].stripe_id)
        assert chunks.prefetcher.begin("one more", records[readers], 0, PAYLOAD_BYTES) == PAYLOAD_BYTES
        await ended(chunks)
        chunks.prefetcher.tidy()
        assert chunks.prefetcher.kept == PIECES_MAX, "somebody may still come"
        monkeypatch.setattr(prefetching, "IDLE_S", 0.0)
        assert chunks.prefetcher.begin("one more", records[0], 0, PIECE_BYTES) == PIECE_BYTES, (
            "nobody is heard of"
        )
        await ended(chunks)
        assert chunks.prefetcher.kept == 1
        monkeypatch.setattr(prefetching, "GONE_S", 0.0)
        chunks.prefetcher.tidy()
        assert chunks.prefetcher.kept == 0
        await check(chunks, records[1], payload, 0)


@trio_test
async def test_writing_takes_the_memory_that_nobody_reads_into(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    payload = some_bytes(PAYLOAD_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
        chunks.prefetcher.begin("reader", record, 0, PAYLOAD_BYTES)
        await ended(chunks)
        await chunks.write_stripe([payload])
        assert chunks.prefetcher._buffers.is_mapped, "somebody may still come"
        chunks.prefetcher.forget("reader")
        await chunks.write_stripe([payload])
        assert not chunks.prefetcher._buffers.is_mapped


@trio_test
async def test_a_drive_that_is_busy_is_not_asked_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(PAYLOAD_BYTES)])
        monkeypatch.setattr(prefetching, "LANE_READS_MAX", 1)
        assert chunks.prefetcher.begin("reader", record, 0, PAYLOAD_BYTES) == PIECE_BYTES
        await ended(chunks)
        assert chunks.prefetcher.begin("reader", record, 0, PAYLOAD_BYTES) == 3 * PIECE_BYTES


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Nothing is read ahead before this is set."""
    goes_on = threading.Event()
    really = FaultyFile.read_into

    def read_into(file: FaultyFile, offset: int, into: memoryview) -> int | None:
        assert goes_on.wait(10)
        return really(file, offset, into)

    monkeypatch.setattr(FaultyFile, "read_into", read_into)
    return goes_on


@trio_test
async def test_a_reader_who_gets_no_buffer_is_left_to_the_page_cache(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(PAYLOAD_BYTES)])
        in_use = [chunks.prefetcher._buffers.take() for _ in range(PIECES_MAX)]
        assert chunks.prefetcher.begin("reader", record, 0, PAYLOAD_BYTES) is None
        in_use.pop()
        assert chunks.prefetcher.begin("reader", record, 0, PAYLOAD_BYTES) == PIECE_BYTES, "it has one now"
        await ended(chunks)


@trio_test
async def test_buffers_in_calls_that_do_not_end_are_not_shared_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: threading.Event
) -> None:
    monkeypatch.setattr(prefetching, "LANE_READS_MAX", 1000)
    bench = Bench.make(tmp_path, 4, 2)
    stuck = PIECES_MAX // READER_PIECES_MIN - 1
    async with bench.store() as chunks:
        records = [await chunks.write_stripe([some_bytes(PAYLOAD_BYTES)]) for _ in range(stuck + 2)]
        for record in records[:stuck]:
            assert chunks.prefetcher.begin(record.stripe_id, record, 0, PAYLOAD_BYTES) == PAYLOAD_BYTES
        for record in records[:stuck]:
            chunks.prefetcher.forget(record.stripe_id)
        assert chunks.prefetcher.begin("one", records[-2], 0, PAYLOAD_BYTES) == PAYLOAD_BYTES
        assert chunks.prefetcher.begin("two", records[-1], 0, PAYLOAD_BYTES) is None
        held.set()
        with trio.fail_after(10):
            while chunks.prefetcher._left:  # noqa: ASYNC110
                await trio.sleep(0.001)
        assert chunks.prefetcher.begin("two", records[-1], 0, PAYLOAD_BYTES) == PAYLOAD_BYTES
        await ended(chunks)


@trio_test
async def test_who_waits_for_a_late_piece_reads_round_it(tmp_path: Path, held: threading.Event) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    payload = some_bytes(PAYLOAD_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
        chunks.prefetcher.begin("reader", record, 0, PIECE_BYTES)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check, chunks, record, payload, 0)
            await trio.testing.wait_all_tasks_blocked()
            (call,) = chunks._calls.watch._calls
            call.late(0.001)
        held.set()
        await ended(chunks)


@trio_test
async def test_who_waits_may_be_cancelled(tmp_path: Path, held: threading.Event) -> None:
    bench = Bench.make(tmp_path, 4, 2)
    payload = some_bytes(PAYLOAD_BYTES)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([payload])
        chunks.prefetcher.begin("reader", record, 0, PIECE_BYTES)
        with trio.CancelScope() as scope:
            scope.cancel()
            await chunks.read(record, 0, PIECE_BYTES)
        assert scope.cancelled_caught
        held.set()
        await ended(chunks)
        with trio.fail_after(10):
            while not next(iter(chunks.prefetcher._pieces.values())).is_ready:  # noqa: ASYNC110
                await trio.sleep(0.001)
        await check(chunks, record, payload, 1)


@trio_test
async def test_the_pool_ends_while_pieces_are_under_way(tmp_path: Path) -> None:
    """Leaving the store waits for them, as for every call."""
    bench = Bench.make(tmp_path, 4, 2)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([some_bytes(PAYLOAD_BYTES)])
        chunks.prefetcher.begin("reader", record, 0, PAYLOAD_BYTES)
        assert chunks.prefetcher.kept == PAYLOAD_BYTES // PIECE_BYTES
    assert [piece for piece in chunks.prefetcher._pieces.values() if not piece.is_ready] == []
