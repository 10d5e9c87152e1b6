"""Flights of very many small ranges land in parts, and looking at each range once."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base.types import Extent
from ciaosfs.fs import flush, reading
from ciaosfs.fs.attributes import SetAttributes
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta.cutting import cut
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import WHO, Store, complaints, content, files_of

STRIDE, COUNT = 50, 300


async def crumbs(filesystem: FileSystem) -> tuple[int, int, bytearray]:
    """A file of COUNT dirty ranges; (handle, inode, content)."""
    handle, inode = await filesystem.create(ROOT_INO, b"file", 0o600, os.O_RDWR, WHO)
    data = bytearray(COUNT * STRIDE)
    for at in range(0, COUNT * STRIDE, STRIDE):
        data[at : at + 20] = b"%20d" % at
        await filesystem.write(handle, at, bytes(data[at : at + 20]))
    return handle, inode.ino, data[: -STRIDE + 20]


@trio_test
async def test_each_range_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def counting(extent: Extent, start: int, end: int) -> Extent | None:
        nonlocal looks
        looks += 1
        return cut(extent, start, end)

    monkeypatch.setattr(flush, "cut", counting)
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        handle, _, data = await crumbs(filesystem)
        await filesystem.sync()
        filesystem.release(handle)
    assert COUNT <= looks <= 3 * COUNT
    assert await files_of(store) == {b"file": bytes(data)}


@pytest.mark.parametrize("seed", range(4))
@trio_test
async def test_what_changes_while_a_flight_lands_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(flush, "RANGES_MAX", 7)
    store, dice = Store.make(tmp_path / "store", 2, 1), random.Random(seed)
    async with store.open() as filesystem:
        handle, ino, data = await crumbs(filesystem)
        landed: Callable[[], int] = lambda: filesystem.getattr(ino).allocated  # noqa: E731
        filesystem._flusher.launch_all()
        while not landed():
            await trio.lowlevel.checkpoint()
        assert landed() < COUNT * 20, "it landed in one step: the test tests nothing"
        for _ in range(20):
            at = dice.randrange(len(data))
            data[at : at + 90] = dice.randbytes(90)
            await filesystem.write(handle, at, bytes(data[at : at + 90]))
            if dice.random() < 0.1:
                del data[dice.randrange(len(data) // 2, len(data)) :]
                await filesystem.setattr(ino, SetAttributes(size=len(data)), WHO)
            assert await content(filesystem, ino) == data
            await trio.lowlevel.checkpoint()
        await filesystem.sync()
        killed = store.copy(tmp_path / "killed")
        filesystem.release(handle)
    assert complaints(killed.database) == []
    assert await files_of(killed) == await files_of(store) == {b"file": bytes(data)}


@trio_test
async def test_a_file_that_goes_while_its_flight_lands_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flush, "RANGES_MAX", 7)
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        handle, ino, _ = await crumbs(filesystem)
        filesystem._flusher.launch_all()
        while not filesystem.getattr(ino).allocated:
            await trio.lowlevel.checkpoint()
        await filesystem.unlink(ROOT_INO, b"file")
        filesystem.release(handle)
        filesystem.forget([ino])
        assert filesystem._meta.inodes.load(ino) is None
        await filesystem.sync()
        assert filesystem.status().pending_bytes == len(filesystem._files) == 0
    assert complaints(store.database) == []


@trio_test
async def test_others_run_while_crumbs_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECES_MAX", 10)
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        handle, _, data = await crumbs(filesystem)
        await filesystem.sync()
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            assert await filesystem.read(handle, 0, len(data)) == data
            assert turns >= COUNT // 10 - 1
            nursery.cancel_scope.cancel()
        filesystem.release(handle)
