"""Files cut short that have very many extents: the cut is one step, what is left goes in slices, and never comes back."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test, wait_all_tasks_blocked

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError
from ciaosfs.fs import slicing
from ciaosfs.fs.attributes import SetAttributes
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import WHO, Store, complaints, content, eventually, files_of, remove

PIECE, STRIDE, COUNT = 100, 1000, 20
ROW_BYTES = 80
"""Of a changeset, more than for an extent."""
SIZE = (COUNT - 1) * STRIDE + PIECE


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few extents are many, and nothing is deleted in the background unless somebody waits for it."""
    monkeypatch.setattr(limits, "TRUNCATE_EXTENTS_INLINE", 4)
    monkeypatch.setattr(limits, "SLICE_EXTENTS", 3)
    monkeypatch.setattr(slicing, "LOOK_S", 1000.0)


def plain() -> bytes:
    """The content of the file: pieces between holes."""
    dice = random.Random(1)
    return b"".join(dice.randbytes(PIECE) + bytes(STRIDE - PIECE) for _ in range(COUNT))[:SIZE]


async def make_file(filesystem: FileSystem, name: bytes = b"file") -> int:
    """COUNT extents, synced."""
    handle, inode = await filesystem.create(ROOT_INO, name, 0o600, os.O_RDWR, WHO)
    data = plain()
    for at in range(0, SIZE, STRIDE):
        await filesystem.write(handle, at, data[at : at + PIECE])
    await filesystem.sync()
    filesystem.release(handle)
    assert extents(filesystem, inode.ino) == COUNT
    return inode.ino


def extents(filesystem: FileSystem, ino: int) -> int:
    return len(filesystem._meta.extents.overlapping(ino, 0, 1 << 62))


async def cut(filesystem: FileSystem, ino: int, size: int) -> None:
    inode = await filesystem.setattr(ino, SetAttributes(size=size), WHO)
    assert inode.size == size


async def write(filesystem: FileSystem, ino: int, at: int, data: bytes) -> None:
    handle = await filesystem.open(ino, os.O_RDWR, WHO)
    try:
        await filesystem.write(handle, at, data)
    finally:
        filesystem.release(handle)


@trio_test
async def test_few_extents_go_at_once(tmp_path: Path) -> None:
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        ino = await make_file(filesystem)
        await cut(filesystem, ino, 16 * STRIDE)
        assert extents(filesystem, ino) == 16 and filesystem._meta.trims.count == 0


@trio_test
async def test_many_extents_go_slice_by_slice(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    size = 5 * STRIDE + 50
    async with store.open() as filesystem:
        ino = await make_file(filesystem)
        before = filesystem._meta.changes_pending()
        await cut(filesystem, ino, size)
        assert filesystem._meta.changes_pending() - before <= 2, "the size and the row"
        assert extents(filesystem, ino) == COUNT
        assert await content(filesystem, ino) == plain()[:size]
        left = []
        while filesystem._reclaimer.waiting:
            filesystem._reclaimer.step()
            left.append(extents(filesystem, ino))
            assert await content(filesystem, ino) == plain()[:size]
        assert left == [17, 14, 11, 8, 6]
        inode = filesystem.getattr(ino)
        assert inode.allocated == 5 * PIECE + 50, "the extent that crosses the end was cut"
    assert complaints(store.database) == []
    assert await files_of(store) == {b"file": plain()[:size]}


@pytest.mark.parametrize("slices", range(7))
@trio_test
async def test_a_crash_between_slices_shows_the_short_file_and_they_go_on(
    tmp_path: Path, slices: int
) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        ino = await make_file(filesystem)
        await cut(filesystem, ino, 4 * STRIDE + 7)
        for _ in range(slices):
            filesystem._reclaimer.step()
        await filesystem.sync()
        left = extents(filesystem, ino)
        killed = store.copy(tmp_path / "killed")
        lost = store.copy(tmp_path / "lost")
        lost.lose_database()
    assert left == max(5, COUNT - 3 * slices)
    for crashed in (killed, lost):
        if crashed is killed:
            assert complaints(crashed.database) == []
        async with crashed.open() as filesystem:
            assert extents(filesystem, ino) == left, "what was deleted stays so, the rest waits"
            assert await content(filesystem, ino) == plain()[: 4 * STRIDE + 7]
            await cut(filesystem, ino, SIZE)
            assert extents(filesystem, ino) == 5
            assert (await content(filesystem, ino))[4 * STRIDE + 7 :] == bytes(SIZE - 4 * STRIDE - 7)
        assert complaints(crashed.database) == []


@trio_test
async def test_rows_left_by_a_crash_are_worked_off_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        ino = await make_file(filesystem)
        await cut(filesystem, ino, 0)
        await filesystem.sync()
        killed = store.copy(tmp_path / "killed")
    monkeypatch.setattr(slicing, "LOOK_S", 0.01)
    async with killed.open() as filesystem:
        await eventually(lambda: filesystem._meta.trims.count == 0)
        assert extents(filesystem, ino) == filesystem.getattr(ino).allocated == 0
        await filesystem.sync()
        await eventually(lambda: filesystem._meta.stripes.count() == 0)
    assert complaints(killed.database) == []


async def by_setattr(filesystem: FileSystem, ino: int) -> None:
    await cut(filesystem, ino, SIZE)


async def by_write(filesystem: FileSystem, ino: int) -> None:
    await write(filesystem, ino, SIZE - 1, b"\0")


@pytest.mark.parametrize("lengthen", [by_setattr, by_write])
@trio_test
async def test_a_longer_file_waits_for_the_slices_and_reads_zeros(
    tmp_path: Path, lengthen: Callable[[FileSystem, int], object]
) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    expected = plain()[:3333] + bytes(SIZE - 3333)
    async with store.open() as filesystem:
        ino = await make_file(filesystem)
        await cut(filesystem, ino, 3333)
        await write(filesystem, ino, 3000, plain()[3000:3333])  # within the file nothing waits
        assert filesystem._meta.trims.count == 1
        filesystem._gate.close()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lengthen, filesystem, ino)  # type: ignore[arg-type]
            await wait_all_tasks_blocked()
            assert filesystem.getattr(ino).size == 3333
            assert extents(filesystem, ino) == COUNT, "a commit made its cut"
            filesystem._gate.open()
        assert filesystem._meta.trims.count == 0
        assert await content(filesystem, ino) == expected
        await filesystem.sync()
        assert await content(filesystem, ino) == expected
    assert complaints(store.database) == []
    assert await files_of(store) == {b"file": expected}


@trio_test
async def test_a_second_cut_moves_the_end_of_what_is_left(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        ino = await make_file(filesystem)
        trims = filesystem._meta.trims
        await cut(filesystem, ino, 12 * STRIDE + 3)
        await cut(filesystem, ino, 10 * STRIDE + 3)  # few extents: at once
        assert (trims.size(ino), extents(filesystem, ino)) == (12 * STRIDE + 3, COUNT - 1)
        await cut(filesystem, ino, 11 * STRIDE)  # longer again, and nothing has to be waited for
        assert await content(filesystem, ino) == plain()[: 10 * STRIDE + 3] + bytes(STRIDE - 3)
        await cut(filesystem, ino, 2 * STRIDE)  # many: they wait, too
        assert (trims.size(ino), trims.count, extents(filesystem, ino)) == (2 * STRIDE, 1, COUNT - 1)
        await filesystem.sync()
        copy = store.copy(tmp_path / "copy")
        assert complaints(copy.database) == []
        await filesystem._slicer.finish()
        assert (trims.count, extents(filesystem, ino)) == (0, 2)
        await cut(filesystem, ino, SIZE)
        assert await content(filesystem, ino) == plain()[: 2 * STRIDE] + bytes(SIZE - 2 * STRIDE)
    assert complaints(store.database) == []


@trio_test
async def test_opening_with_truncation_is_the_same(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        ino = await make_file(filesystem)
        handle = await filesystem.open(ino, os.O_RDWR | os.O_TRUNC, WHO)
        assert filesystem._meta.trims.size(ino) == 0
        await filesystem.write(handle, 0, b"new")
        filesystem.release(handle)
        assert filesystem._meta.trims.count == 0
        assert await content(filesystem, ino) == b"new"
    assert await files_of(store) == {b"file": b"new"}


@pytest.mark.parametrize("slices", [0, 2])
@trio_test
async def test_a_file_that_is_removed_meanwhile_leaves_no_row(tmp_path: Path, slices: int) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        ino = await make_file(filesystem)
        await cut(filesystem, ino, 10 * STRIDE)
        for _ in range(slices):
            filesystem._reclaimer.step()
        await remove(filesystem, b"file")
        await filesystem.sync()
        copy = store.copy(tmp_path / "copy")
        assert complaints(copy.database) == []
        await filesystem._slicer.finish()
        assert filesystem._meta.trims.count == filesystem._reclaimer.waiting == 0
        assert filesystem._meta.inodes.load(ino) is None
    assert complaints(store.database) == []
    async with copy.open() as filesystem:
        await filesystem._slicer.finish()
        assert filesystem._meta.inodes.load(ino) is None
    assert complaints(copy.database) == []


@trio_test
async def test_the_compactor_may_copy_what_waits_to_be_deleted(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        ino = await make_file(filesystem)
        await cut(filesystem, ino, 2 * STRIDE + 50)
        filesystem._reclaimer.step()
        for _ in range(3):
            (old,) = (stripe for stripe in filesystem._meta.stripes.ids_after(0))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(filesystem._room._compactor._merger.merge, [old], "compact")
                await trio.lowlevel.checkpoint()
                filesystem._reclaimer.step()
            assert await content(filesystem, ino) == plain()[: 2 * STRIDE + 50]
            await filesystem.sync()
            await eventually(lambda old=old: filesystem._meta.stripes.load(old) is None)  # type: ignore[misc]
        assert extents(filesystem, ino) == COUNT - 4 * 3
        copy = store.copy(tmp_path / "copy")
        assert complaints(copy.database) == []
        await cut(filesystem, ino, SIZE)
        assert await content(filesystem, ino) == plain()[: 2 * STRIDE + 50] + bytes(SIZE - 2 * STRIDE - 50)
    assert complaints(store.database) == []


@trio_test
async def test_no_commit_gets_more_slices_than_it_can_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        ino = await make_file(filesystem)
        others = {
            name: await make_file(filesystem, name) for name in (b"other", b"another", b"third", b"fourth")
        }
        for name in others:
            await remove(filesystem, name)
        await cut(filesystem, ino, 0)
        await filesystem.sync()
        monkeypatch.setattr(limits, "COMMIT_CHANGESET_BYTES", 10 * ROW_BYTES)
        first = filesystem.status().commit.sequence
        sizes: list[int] = []
        take = filesystem._meta.take_changeset

        def taken() -> bytes:
            sizes.append(filesystem._meta.database.changeset_bytes)
            return take()

        monkeypatch.setattr(filesystem._meta, "take_changeset", taken)
        await filesystem._slicer.finish()
        # What the others have takes four commits of the size that is allowed, however two slicers share them.
        assert filesystem.status().commit.sequence - first == len(sizes) >= 4
        assert max(sizes) <= (10 + 2 * limits.SLICE_EXTENTS + 8) * ROW_BYTES
        assert not any(map(filesystem._meta.inodes.load, others.values())) and extents(filesystem, ino) == 0


@trio_test
async def test_many_cuts_in_one_transaction_do_not_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the transaction is large, what would be deleted at once waits, too."""
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        files = [await make_file(filesystem, b"%d" % number) for number in range(3)]
        monkeypatch.setattr(limits, "TRUNCATE_EXTENTS_INLINE", 100)
        monkeypatch.setattr(limits, "COMMIT_CHANGESET_BYTES", 10 * ROW_BYTES)
        sequence = filesystem.status().commit.sequence
        for ino in files:
            await cut(filesystem, ino, 0)
        assert [extents(filesystem, ino) for ino in files] == [0, COUNT, COUNT]
        await eventually(lambda: filesystem.status().commit.sequence > sequence)


@trio_test
async def test_who_waits_hears_why_nothing_can_be_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        ino = await make_file(filesystem)
        await cut(filesystem, ino, 0)

        async def fail() -> None:
            await trio.lowlevel.checkpoint()
            raise CiaosError("the drives are away")

        with monkeypatch.context() as context:
            context.setattr(limits, "COMMIT_CHANGESET_BYTES", 4 * ROW_BYTES)
            context.setattr(filesystem._committer, "sync", fail)
            with pytest.raises(CiaosError, match="away"):
                await cut(filesystem, ino, SIZE)
            with pytest.raises(CiaosError, match="away"):
                await filesystem._slicer.finish()
        assert filesystem.getattr(ino).size == 0
        await filesystem._slicer.finish()
        await cut(filesystem, ino, SIZE)
        assert await content(filesystem, ino) == bytes(SIZE)
