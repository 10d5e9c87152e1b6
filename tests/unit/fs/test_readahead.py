"""Sequential readers find the stripes they come to asked for, each time anew, and others ask for nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Hashable
from itertools import accumulate
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base import clock
from ciaosfs.base.errors import FsError
from ciaosfs.base.limits import MIB, STRIPE_PAYLOAD_BYTES_MAX
from ciaosfs.base.types import StripeRecord
from ciaosfs.drive.localfile import LocalFile
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.fs.reading import PASSED_BYTES
from ciaosfs.meta.inodes import ROOT_INO
from ciaosfs.stripe import prefetching
from ciaosfs.stripe.prefetching import Prefetcher
from tests.support.builders import WHO, Store

STRIPES = 6
TOTAL_BYTES = STRIPES * STRIPE_PAYLOAD_BYTES_MAX


def watch_asking(filesystem: FileSystem, into: str = "memory") -> list[tuple[int, int, int]]:
    """What is read ahead from now on: stripe, and from where to where in it."""
    asked: list[tuple[int, int, int]] = []
    chunks = filesystem._chunks
    really = chunks.prefetcher.begin

    def prefetch(reader: Hashable, stripe: StripeRecord, start: int, end: int, shift: int = 0) -> int | None:
        if into != "memory":
            return None
        reached = really(reader, stripe, start, end, shift)
        if reached is not None and reached > start:
            asked.append((stripe.stripe_id, start, reached))
        return reached

    async def advise(stripe: StripeRecord) -> None:
        asked.append((stripe.stripe_id, 0, stripe.payload_bytes))

    chunks.prefetcher.begin = prefetch  # type: ignore[method-assign]
    chunks.advise = advise  # type: ignore[method-assign]
    return asked


async def ended(prefetcher: Prefetcher) -> None:
    """No piece is under way any more."""
    with trio.fail_after(10):
        while any(piece.is_under_way for piece in prefetcher._pieces.values()):  # noqa: ASYNC110
            await trio.sleep(0.001)


async def make_stream(filesystem: FileSystem) -> tuple[int, list[int]]:
    """A handle on a file of `STRIPES` stripes, and these."""
    handle, inode = await filesystem.create(ROOT_INO, b"stream", 0o600, os.O_RDWR, WHO)
    for offset in range(0, STRIPES * STRIPE_PAYLOAD_BYTES_MAX, MIB):
        await filesystem.write(handle, offset, os.urandom(MIB))
    await filesystem.sync()
    extents = filesystem._meta.extents.overlapping(inode.ino, 0, STRIPES * STRIPE_PAYLOAD_BYTES_MAX)
    stripes = [extent.stripe_id for extent in extents]
    assert len(set(stripes)) == STRIPES
    return handle, stripes


@pytest.mark.parametrize("into", ["memory", "page cache"])
@trio_test
async def test_each_byte_is_read_ahead_once_in_each_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, into: str
) -> None:
    monkeypatch.setattr(prefetching, "LANE_READS_MAX", 1000)  # however slow the drives are
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        handle, stripes = await make_stream(filesystem)
        ino = filesystem._handle(handle).file.ino
        filesystem.release(handle)
        asked = watch_asking(filesystem, into)
        for _ in range(2):
            asked.clear()
            handle = await filesystem.open(ino, os.O_RDONLY, WHO)
            for offset in range(0, TOTAL_BYTES, MIB):
                await filesystem.read(handle, offset, MIB)
                reached = min(STRIPES - 1, (offset + MIB) // STRIPE_PAYLOAD_BYTES_MAX + 1)
                assert set(stripes[: reached + 1]) <= {stripe for stripe, _, _ in asked}
            seen = sorted(
                (stripes.index(stripe) * STRIPE_PAYLOAD_BYTES_MAX + start, end - start)
                for stripe, start, end in asked
            )
            first = MIB if into == "memory" else 0
            assert [start for start, _ in seen] == list(
                accumulate((length for _, length in seen[:-1]), initial=first)
            )
            assert sum(length for _, length in seen) == TOTAL_BYTES - first
            filesystem.release(handle)
        asked.clear()
        handle = await filesystem.open(ino, os.O_RDONLY, WHO)
        for offset in (9 * MIB, 2 * MIB, 14 * MIB):
            await filesystem.read(handle, offset, MIB)
        assert asked == [], "these reads do not follow each other"
        filesystem.release(handle)


@pytest.mark.parametrize("into", ["memory", "page cache"])
@trio_test
async def test_who_goes_back_on_the_same_handle_is_read_ahead_for_again(tmp_path: Path, into: str) -> None:
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        handle, stripes = await make_stream(filesystem)
        asked = watch_asking(filesystem, into)
        for offset in range(0, TOTAL_BYTES, MIB):
            await filesystem.read(handle, offset, MIB)
        asked.clear()
        filesystem._handle(handle).next_offset = MIB  # as after a read that was answered from the page cache
        await filesystem.read(handle, MIB, MIB)
        assert set(stripes[:3]) <= {stripe for stripe, _, _ in asked}
        filesystem.release(handle)


@trio_test
async def test_streams_read_the_same_bytes_from_what_was_read_ahead(tmp_path: Path) -> None:
    """Several at once, in reads that do not keep to shards, one of which stops and one of which goes elsewhere."""
    async with Store.make(tmp_path / "store", 4, 2).open() as filesystem:
        handle, _ = await make_stream(filesystem)
        ino = filesystem._handle(handle).file.ino
        wanted = b"".join(
            [bytes(await filesystem.read(handle, at, MIB)) for at in range(0, TOTAL_BYTES, MIB)]
        )
        filesystem.release(handle)
        prefetcher = filesystem._chunks.prefetcher

        async def read(begin: int, end: int, size: int) -> None:
            number = await filesystem.open(ino, os.O_RDONLY, WHO)
            for start, stop in ((0, size), (begin, end)):
                for at in range(start, stop, size):
                    found = bytes(await filesystem.read(number, at, size))
                    assert (found == wanted[at : at + size]) is True
            filesystem.release(number)

        before = prefetcher.taken
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, 0, TOTAL_BYTES, MIB)
            nursery.start_soon(read, 0, TOTAL_BYTES, MIB // 8)
            nursery.start_soon(read, 5 * MIB, 12 * MIB, 700_001)
        assert prefetcher.taken > before
        assert prefetcher.kept == 0, "all handles are closed"


@trio_test
async def test_what_a_reader_has_passed_makes_room_though_nobody_took_its_end(tmp_path: Path) -> None:
    """The last page of every stripe was written anew: the piece that it lies in is never read to its end."""
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        handle, _ = await make_stream(filesystem)
        for end in range(STRIPE_PAYLOAD_BYTES_MAX, TOTAL_BYTES + 1, STRIPE_PAYLOAD_BYTES_MAX):
            await filesystem.write(handle, end - 4096, bytes(4096))
        await filesystem.sync()
        ino = filesystem._handle(handle).file.ino
        filesystem.release(handle)
        prefetcher = filesystem._chunks.prefetcher
        number = await filesystem.open(ino, os.O_RDONLY, WHO)
        reader = filesystem._handle(number)
        for offset in range(0, TOTAL_BYTES, MIB):
            await filesystem.read(number, offset, MIB)
            await ended(prefetcher)
            ends = prefetcher._readers[reader].pieces.values() if reader in prefetcher._readers else ()
            assert all(end > offset + MIB - PASSED_BYTES for end in ends)
        filesystem.release(number)
        assert prefetcher.kept == 0


@trio_test
async def test_what_was_read_ahead_is_taken_though_the_page_cache_has_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the kernel reads ahead, too, the same bytes, and nobody comes for the others."""
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        handle, _ = await make_stream(filesystem)
        chunks = filesystem._chunks
        await filesystem.read(handle, 0, MIB)
        await ended(chunks.prefetcher)
        looked: list[int] = []

        def look(stripe: StripeRecord, offset: int, length: int) -> bytes:
            looked.append(offset)
            return bytes(length)

        monkeypatch.setattr(chunks, "read_nowait", look)
        before = chunks.prefetcher.taken
        for offset, size in ((MIB, 3 * MIB // 2), (5 * MIB // 2, 2 * MIB)):  # the second one of two stripes
            assert filesystem.read_nowait(handle, offset, size) is None
            assert any(await filesystem.read(handle, offset, size))
        assert looked == []
        assert chunks.prefetcher.taken > before
        filesystem.release(handle)


@trio_test
async def test_who_pauses_is_read_ahead_for_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read ahead is given up meanwhile; it is asked for anew, and then not again."""
    monkeypatch.setattr(prefetching, "LANE_READS_MAX", 1000)  # however slow the drives are
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        handle, stripes = await make_stream(filesystem)
        prefetcher = filesystem._chunks.prefetcher
        for offset in (0, MIB):
            await filesystem.read(handle, offset, MIB)
        with monkeypatch.context() as patch:
            patch.setattr(prefetching, "GONE_S", 0.0)
            prefetcher.tidy()
        assert prefetcher.kept == 0
        asked = watch_asking(filesystem)
        await filesystem.read(handle, 2 * MIB, MIB)
        assert prefetcher.kept > 0
        assert asked[0][:2] == (stripes[0], 3 * MIB)
        asked.clear()
        await filesystem.read(handle, 3 * MIB, MIB)
        assert stripes[0] not in {stripe for stripe, _, _ in asked}
        filesystem.release(handle)
        assert not prefetcher._robbed


@trio_test
async def test_who_was_refused_is_read_ahead_for_into_the_page_cache_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        handle, stripes = await make_stream(filesystem)
        prefetcher = filesystem._chunks.prefetcher
        monkeypatch.setattr(LocalFile, "read_into", lambda *_: None)
        await filesystem.read(handle, 0, MIB)
        await ended(prefetcher)
        asked = watch_asking(filesystem)
        await filesystem.read(handle, MIB, MIB)
        await trio.testing.wait_all_tasks_blocked()
        assert set(stripes[:2]) <= {stripe for stripe, _, _ in asked}
        filesystem.release(handle)


@trio_test
async def test_a_reader_is_not_robbed_by_what_is_begun_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was silent for long, and is heard of now."""
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        handle, _ = await make_stream(filesystem)
        prefetcher = filesystem._chunks.prefetcher
        monkeypatch.setattr(prefetching, "PIECES_MAX", 8)  # what a reader who has just begun gets at once
        monkeypatch.setattr(prefetching, "LANE_READS_MAX", 8)
        await filesystem.read(handle, 0, MIB)
        assert prefetcher.kept == 8
        await ended(prefetcher)
        later_s = clock.monotonic_s() + prefetching.IDLE_S
        monkeypatch.setattr(clock, "monotonic_s", lambda: later_s)
        before = prefetcher.taken
        await filesystem.read(handle, MIB, MIB)
        assert prefetcher.taken == before + 1
        filesystem.release(handle)


@trio_test
async def test_a_stripe_ahead_that_nobody_knows_is_met_by_who_reads_it(tmp_path: Path) -> None:
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        handle, stripes = await make_stream(filesystem)
        reader, unknown = filesystem._reader, stripes[1]
        record = reader.record

        def look(stripe_id: int) -> StripeRecord:
            if stripe_id == unknown:
                raise FsError(errno.EIO)
            return record(stripe_id)

        reader.record = look  # type: ignore[method-assign]
        for offset in range(0, STRIPE_PAYLOAD_BYTES_MAX, MIB):
            assert len(await filesystem.read(handle, offset, MIB)) == MIB
        with pytest.raises(FsError):
            await filesystem.read(handle, STRIPE_PAYLOAD_BYTES_MAX, MIB)
        filesystem.release(handle)
