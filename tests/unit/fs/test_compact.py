"""Compaction: what is live is kept byte for byte, what is copied is a gain, and it comes to an end."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base import limits
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import WHO, Store, complaints, content, eventually, files_of, put, remove

BLOCK = limits.COMPRESS_BLOCK_BYTES


def block(seed: int) -> bytes:
    """A block that shrinks by a fifth: compressed, it is still large."""
    noise = random.Random(seed).randbytes(BLOCK * 4 // 5)
    return noise + bytes(BLOCK - len(noise))


async def compact(filesystem: FileSystem) -> int:
    """Work until there is nothing more to do; returns in how many steps."""
    steps = 0
    while await filesystem._room._compactor.step():
        steps += 1
        assert steps < 50, "it goes on for ever"
    return steps


@pytest.mark.parametrize("kept", [1, 1000])
@trio_test
async def test_a_little_left_of_many_compressed_blocks_is_a_gain(tmp_path: Path, kept: int) -> None:
    """The blocks themselves are far larger than one stripe: only what is live of them is copied."""
    store = Store.make(tmp_path / "store", 2, 1)
    count = 80
    async with store.open() as filesystem:
        handle, inode = await filesystem.create(ROOT_INO, b"file", 0o600, os.O_RDWR, WHO)
        for number in range(count):
            await filesystem.write(handle, number * BLOCK, block(number))
        await filesystem.sync()
        await filesystem.setxattr(inode.ino, b"user.ciaos.compression", b"none", WHO)
        other = await filesystem.open(inode.ino, os.O_RDWR, WHO)
        for number in range(count):
            await filesystem.write(
                other, number * BLOCK + kept, random.Random(-number).randbytes(BLOCK - kept)
            )
        await filesystem.sync()
        expected = await content(filesystem, inode.ino)
        assert expected[:kept] == block(0)[:kept]
        before = filesystem._meta.statistics().payload_bytes
        assert await compact(filesystem) == 1
        await filesystem.sync()
        assert await content(filesystem, inode.ino) == expected
        await eventually(lambda: filesystem._meta.statistics().payload_bytes < before - count * BLOCK // 2)
        filesystem.release(handle)
        filesystem.release(other)
    assert complaints(store.database) == []
    assert await files_of(store) == {b"file": expected}


@trio_test
async def test_every_other_small_file_deleted_gives_its_space_back(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    files = {b"%d" % number: random.Random(number).randbytes(30_000) for number in range(160)}
    async with store.open() as filesystem:
        for name, data in files.items():
            await put(filesystem, name, data)
        await filesystem.sync()
        for number in range(160):
            if number % 4:
                await remove(filesystem, b"%d" % number)
                del files[b"%d" % number]
        await filesystem.sync()
        full = filesystem._meta.statistics().payload_bytes
        await compact(filesystem)
        await filesystem.sync()
        await eventually(lambda: filesystem._meta.statistics().payload_bytes < full // 2)
    assert await files_of(store) == files
    assert complaints(store.database) == []


@pytest.mark.parametrize("seed", range(6))
@trio_test
async def test_files_that_change_while_they_are_copied_keep_their_changes(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        expected = {}
        inodes = {}
        for number in range(30):
            name = b"%d" % number
            expected[name] = bytearray(
                block(number)[: dice.randrange(1, BLOCK)] if number % 2 else b"text " * 9999
            )
            inodes[name] = await put(filesystem, name, bytes(expected[name]))
        await filesystem.sync()
        ids = filesystem._meta.stripes.ids_after(0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(filesystem._room._compactor._merger.merge, ids, "compact")
            for _ in range(60):
                name = dice.choice(list(expected))
                data = expected[name]
                handle = await filesystem.open(inodes[name], os.O_RDWR, WHO)
                at, length = dice.randrange(len(data) + 1), dice.randrange(1, 20_000)
                await filesystem.write(handle, at, new := dice.randbytes(length))
                data[at : at + length] = new
                filesystem.release(handle)
                if dice.random() < 0.3:
                    await trio.sleep(0.001)
                if dice.random() < 0.1:
                    await filesystem.sync()
    assert await files_of(store) == {name: bytes(data) for name, data in expected.items()}
    assert complaints(store.database) == []
