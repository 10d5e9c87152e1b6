"""What is made ready ahead is what a real store would answer now."""

from __future__ import annotations

import os
from pathlib import Path

import trio
from ciaosfsd.fuse.attributes import entry_attributes
from ciaosfsd.fuse.ready import ReadyListings
from trio.testing import trio_test

from ciaosfs.base.limits import MIB
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import WHO, Store, put


def is_listed_ready(ready: ReadyListings, filesystem: FileSystem, folder: int) -> bool:
    """Whether a listing finds its entries ready; they are those of lookup. What was not is made ready afterwards."""
    rows = filesystem.list_directory(folder, 0, 100)
    made = ready.entries(folder, 0, rows)
    if made is not None:
        for row, (name, entry, cookie) in zip(rows, made, strict=True):
            assert (name, cookie) == (row[1], row[0])
            wanted = entry_attributes(filesystem.getattr(row[2]), filesystem.pending_bytes_of(row[2]))
            assert (entry.st_ino, entry.st_size, entry.st_blocks) == (
                wanted.st_ino,
                wanted.st_size,
                wanted.st_blocks,
            )
    while ready.use_idle_moment():
        pass
    return made is not None


@trio_test
async def test_bytes_in_memory_count_from_the_write_to_the_commit(tmp_path: Path) -> None:
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        ready = ReadyListings(filesystem)
        folder = (await filesystem.mkdir(ROOT_INO, b"d", 0o755, WHO)).ino
        inodes = [await put(filesystem, b"%d" % n, bytes(1000 * n + 1), folder) for n in range(5)]
        assert [is_listed_ready(ready, filesystem, folder) for _ in range(3)] == [False, True, True]
        await filesystem.sync()
        assert [is_listed_ready(ready, filesystem, folder) for _ in range(3)] == [False, True, True]
        handle = await filesystem.open(inodes[4], os.O_RDWR, WHO)
        for _ in range(3):
            await filesystem.write(handle, 0, bytes(2000))
            assert [is_listed_ready(ready, filesystem, folder) for _ in range(3)] == [False, True, True]
            await filesystem.write(handle, 1000, bytes(3000))
            assert [is_listed_ready(ready, filesystem, folder) for _ in range(3)] == [False, True, True]
            await filesystem.sync()
            assert [is_listed_ready(ready, filesystem, folder) for _ in range(3)] == [False, True, True]
        filesystem.release(handle)


@trio_test
async def test_what_grew_is_made_ready_when_its_stripes_are_written_and_told_by_the_cut(
    tmp_path: Path,
) -> None:
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem, trio.open_nursery() as nursery:
        folder = (await filesystem.mkdir(ROOT_INO, b"d", 0o755, WHO)).ino
        await put(filesystem, b"f", os.urandom(3 * MIB), folder)
        heard: list[tuple[int, bool]] = []

        async def listen() -> None:
            await filesystem.wait_cut()
            rows = filesystem.list_grown()
            heard.append((filesystem.listing_mark[1], rows is not None))

        nursery.start_soon(listen)
        filesystem._flusher.launch_all()
        assert filesystem._flusher.flights
        assert filesystem.listing_mark[1]
        assert filesystem.list_grown() is None
        await filesystem.sync()
        assert heard == [(0, True)]
