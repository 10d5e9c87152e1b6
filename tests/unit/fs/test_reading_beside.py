"""Reads while everything else goes on: each page that is read was written as it is, and is no older than it may be."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from trio.testing import trio_test

from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import WHO, Store, complaints

PAGE = 60_000
PAGES = 12
_STAMP = struct.Struct("<QQ")


def page(number: int, version: int) -> bytes:
    head = _STAMP.pack(number, version)
    if version % 2:
        return head + random.Random(version).randbytes(PAGE - len(head))
    return head + bytes([version % 251]) * (PAGE - len(head))


class Book:
    """One file of pages, the version each has, and how often it was read."""

    def __init__(self, filesystem: FileSystem, handle: int) -> None:
        self.filesystem = filesystem
        self.handle = handle
        self.versions = [0] * PAGES
        self.reads = 0

    async def write(self, number: int) -> None:
        version = self.versions[number] + 1
        await self.filesystem.write(self.handle, number * PAGE, page(number, version))
        self.versions[number] = version

    async def write_all_the_time(self) -> None:
        dice = random.Random(1)
        while True:
            await self.write(dice.randrange(PAGES))
            await trio.sleep(dice.random() / 300)

    async def read_all_the_time(self, seed: int) -> None:
        dice = random.Random(seed)
        while True:
            number = dice.randrange(PAGES)
            low = self.versions[number]
            start, length = number * PAGE, PAGE
            data = self.filesystem.read_nowait(self.handle, start, length) if dice.random() < 0.3 else None
            if data is None:
                data = await self.filesystem.read(self.handle, start, length)
            found, version = _STAMP.unpack_from(data)
            assert found == number
            assert low <= version <= self.versions[number] + 1
            assert bytes(data) == page(number, version)
            self.reads += 1
            await trio.lowlevel.checkpoint()


async def again_and_again(step: Callable[[], Awaitable[object]], pause_s: float) -> None:
    while True:
        await step()
        await trio.sleep(pause_s)


@pytest.mark.parametrize("unlucky", [None, 1])
@trio_test
async def test_every_page_that_is_read_was_written(tmp_path: Path, unlucky: int | None) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        handle, _ = await filesystem.create(ROOT_INO, b"book", 0o600, os.O_RDWR, WHO)
        book = Book(filesystem, handle)
        for number in range(PAGES):
            await book.write(number)

        async def compact() -> None:
            ids = filesystem._meta.stripes.ids_after(0)[:3]
            await filesystem._room._compactor._merger.merge(ids, "compact")

        async def come_and_go() -> None:
            assert unlucky is not None
            if store.hidden():
                store.bring_back(unlucky)
            else:
                store.hide(unlucky)
            await filesystem._chunks.refresh_drives()

        with trio.move_on_after(1.0):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(book.write_all_the_time)
                nursery.start_soon(again_and_again, filesystem.sync, 0.005)
                nursery.start_soon(again_and_again, compact, 0.02)
                if unlucky is not None:
                    nursery.start_soon(again_and_again, come_and_go, 0.05)
                for seed in range(3):
                    nursery.start_soon(book.read_all_the_time, seed)
        assert book.reads > 20
        if store.hidden():
            store.bring_back(1)
        filesystem.release(handle)
    assert complaints(store.database) == []
