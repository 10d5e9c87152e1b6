"""Sequential readers find the stripes they come to asked for, each time anew, and others ask for nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.errors import FsError
from ciaosfs.base.limits import MIB, STRIPE_PAYLOAD_BYTES_MAX
from ciaosfs.base.types import StripeRecord
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.fs.reading import READAHEAD_STRIPES
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import WHO, Store

STRIPES = 6


def watch_asking(filesystem: FileSystem) -> list[int]:
    """The stripes that are asked for from now on."""
    asked: list[int] = []

    async def advise(stripe: StripeRecord) -> None:
        asked.append(stripe.stripe_id)

    filesystem._chunks.advise = advise  # type: ignore[method-assign]
    return asked


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


@trio_test
async def test_each_stripe_is_asked_for_once_in_each_pass(tmp_path: Path) -> None:
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        handle, stripes = await make_stream(filesystem)
        ino = filesystem._handle(handle).file.ino
        filesystem.release(handle)
        asked = watch_asking(filesystem)
        for _ in range(2):
            asked.clear()
            handle = await filesystem.open(ino, os.O_RDONLY, WHO)
            for offset in range(0, STRIPES * STRIPE_PAYLOAD_BYTES_MAX, MIB):
                await filesystem.read(handle, offset, MIB)
                reached = min(
                    STRIPES - 1, (offset + MIB) // STRIPE_PAYLOAD_BYTES_MAX + READAHEAD_STRIPES // 2
                )
                assert set(stripes[: reached + 1]) <= set(asked)
            assert sorted(asked) == sorted(stripes)
            filesystem.release(handle)
        asked.clear()
        handle = await filesystem.open(ino, os.O_RDONLY, WHO)
        for offset in (9 * MIB, 2 * MIB, 14 * MIB):
            await filesystem.read(handle, offset, MIB)
        assert asked == [], "these reads do not follow each other"
        filesystem.release(handle)


@trio_test
async def test_who_goes_back_on_the_same_handle_is_read_ahead_for_again(tmp_path: Path) -> None:
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        handle, stripes = await make_stream(filesystem)
        asked = watch_asking(filesystem)
        for offset in range(0, STRIPES * STRIPE_PAYLOAD_BYTES_MAX, MIB):
            await filesystem.read(handle, offset, MIB)
        asked.clear()
        filesystem._handle(handle).next_offset = MIB  # as after a read that was answered from the page cache
        await filesystem.read(handle, MIB, MIB)
        assert set(stripes[: 1 + READAHEAD_STRIPES]) <= set(asked)
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
