"""Defragmenting: which extents are laid out anew, that nothing changes in files by it, and that it comes to an end."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base import limits
from ciaosfs.base.types import Codec, Extent
from ciaosfs.fs import defragment
from ciaosfs.fs.defragment import Defragmenter, plan_run
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.fs.merge import EXTENTS_MAX, Move
from tests.support.builders import Store, complaints, content, put

NOW_MS = 1_800_000_000_000
OLD = NOW_MS - int(limits.DEFRAGMENT_AGE_S * 1000) << 21
YOUNG = NOW_MS - 1000 << 21
MIN = limits.DEFRAGMENT_EXTENTS_MIN
PAGE = 4096


def extents(ino: int, count: int, *, first: int = 0, length: int = PAGE, stripe: int = OLD) -> list[Move]:
    return [
        (ino, Extent((first + n) * length, length, stripe + n % 2, n * length, length, Codec.RAW, 0))
        for n in range(count)
    ]


def test_a_run_of_small_neighbours_is_found_among_others() -> None:
    run = extents(7, MIN)
    rows = [*extents(5, MIN - 1), *run, *extents(7, MIN - 1, first=MIN + 1), *extents(9, 1)]
    assert plan_run(rows, NOW_MS) == (run, 2 * MIN - 1, False)
    assert plan_run(rows[: MIN - 1], NOW_MS) == ([], MIN - 1, False), "too few"
    large = extents(5, MIN, length=limits.DEFRAGMENT_EXTENT_BYTES_MAX + 1)
    assert plan_run(large, NOW_MS) == ([], MIN - 1, False), "the last one may be the first of a run"
    assert plan_run([], NOW_MS) == ([], 0, False)


def test_what_is_young_waits_and_keeps_the_turn_from_being_the_last() -> None:
    run = extents(7, MIN)
    run[3] = 7, run[3][1]._replace(stripe_id=YOUNG)
    assert plan_run(run, NOW_MS) == ([], MIN, True)
    assert plan_run(run, NOW_MS + 60_000).run == run


def test_a_run_that_may_go_on_behind_the_rows_is_left_for_the_next_look() -> None:
    rows = [*extents(5, 3), *extents(7, MIN)]
    assert plan_run(rows, NOW_MS) == ([], 3, False)
    assert plan_run(rows[3:], NOW_MS) == (rows[3:], MIN, False)


def test_no_more_than_a_step_can_move() -> None:
    rows = extents(7, 2 * EXTENTS_MAX)
    assert len(plan_run(rows, NOW_MS).run) == EXTENTS_MAX
    rows = extents(7, 1000, length=limits.DEFRAGMENT_EXTENT_BYTES_MAX)
    together = sum(extent.length for _, extent in plan_run(rows, NOW_MS).run)
    assert together == limits.STRIPE_PAYLOAD_BYTES_MAX


def test_compressed_blocks_are_bounded_as_they_are_read() -> None:
    stored = 100_000
    rows: list[Move] = [
        (7, Extent(n * PAGE, PAGE, OLD, n // 2 * stored, stored, Codec.ZSTD, 0)) for n in range(EXTENTS_MAX)
    ]
    run = plan_run(rows, NOW_MS).run
    assert 2 * (defragment.STORED_BYTES_MAX // stored) == len(run) < EXTENTS_MAX


def defragmenter_of(filesystem: FileSystem) -> Defragmenter:
    parts = filesystem.parts
    return Defragmenter(parts.meta, parts.chunks, parts.compactor._merger, parts.workers)


async def fragmented(filesystem: FileSystem, pages: int) -> tuple[int, bytes]:
    """A file of which every second page lies in another stripe: its inode and what is in it."""
    dice = random.Random(1)
    data = dice.randbytes(pages * PAGE)
    ino = await put(filesystem, b"database", bytes(len(data)))
    await write_pages(filesystem, ino, data, range(0, pages, 2))
    await write_pages(filesystem, ino, data, range(1, pages, 2))
    return ino, data


async def write_pages(filesystem: FileSystem, ino: int, data: bytes, numbers: range) -> None:
    _, handle = filesystem._files.open(ino, 0)
    number = filesystem._files._next_handle - 1
    assert filesystem._files.handle(number) is handle
    for page in numbers:
        await filesystem.write(number, page * PAGE, data[page * PAGE : (page + 1) * PAGE])
    filesystem.release(number)
    await filesystem.sync()


def count_extents(filesystem: FileSystem, ino: int) -> int:
    return len(filesystem._meta.extents.overlapping(ino, 0, 1 << 40))


@trio_test
async def test_a_file_written_in_crumbs_is_one_extent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DEFRAGMENT_AGE_S", 0.0)
    monkeypatch.setattr(defragment, "PAUSE_S", 0.0)
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        ino, data = await fragmented(filesystem, 700)
        assert count_extents(filesystem, ino) == 700
        defragmenter = defragmenter_of(filesystem)
        steps = 0
        while await defragmenter.step():
            steps += 1
        assert steps == 2 and count_extents(filesystem, ino) == 2
        assert await content(filesystem, ino) == data
        await filesystem.sync()
        for _ in range(3):
            assert not await defragmenter.step(), "it has been done"
        looks: list[object] = []
        monkeypatch.setattr(defragmenter, "_look", looks.append)
        assert not await defragmenter.step() and not looks, (
            "nothing is looked at until something is committed"
        )
    assert complaints(store.database) == []
    async with store.open() as filesystem:
        assert await content(filesystem, ino) == data


@trio_test
async def test_what_is_written_while_it_is_copied_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DEFRAGMENT_AGE_S", 0.0)
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        ino, data = await fragmented(filesystem, 200)
        merger = filesystem.parts.compactor._merger
        rows = [(ino, extent) for extent in filesystem._meta.extents.overlapping(ino, 0, 200 * PAGE)]
        read = merger._read
        newer = bytearray(data)

        async def overtaken(*arguments: object) -> object:
            stored = await read(*arguments)  # type: ignore[arg-type]
            newer[10 * PAGE : 11 * PAGE] = b"n" * PAGE
            await write_pages(filesystem, ino, bytes(newer), range(10, 11))
            return stored

        monkeypatch.setattr(merger, "_read", overtaken)
        assert await merger.move(rows, "defragment")
        assert await content(filesystem, ino) == newer
        assert count_extents(filesystem, ino) == 3
    assert complaints(store.database) == []


@trio_test
async def test_nothing_is_copied_while_a_drive_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy would lack a shard; where the old stripes have it the drive brings it back."""
    monkeypatch.setattr(limits, "DEFRAGMENT_AGE_S", 0.0)
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        ino, _ = await fragmented(filesystem, 100)
        defragmenter = defragmenter_of(filesystem)
        assert defragmenter._may_copy()
        store.hide(1)
        await filesystem._chunks.refresh_drives()
        for _ in range(3):
            assert not await defragmenter.step()
        assert count_extents(filesystem, ino) == 100
