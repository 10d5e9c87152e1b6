"""Sequential readers find the stripes they come to asked for, each time anew, and others ask for nothing."""

from __future__ import annotations

import os
from pathlib import Path

from trio.testing import trio_test

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


@trio_test
async def test_each_stripe_is_asked_for_once_in_each_pass(tmp_path: Path) -> None:
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        handle, inode = await filesystem.create(ROOT_INO, b"stream", 0o600, os.O_RDWR, WHO)
        for _ in range(STRIPES * STRIPE_PAYLOAD_BYTES_MAX // MIB):
            size = filesystem.getattr(inode.ino).size
            await filesystem.write(handle, size, os.urandom(MIB))
        await filesystem.sync()
        filesystem.release(handle)
        extents = filesystem._meta.extents.overlapping(inode.ino, 0, STRIPES * STRIPE_PAYLOAD_BYTES_MAX)
        stripes = [extent.stripe_id for extent in extents]
        assert len(set(stripes)) == STRIPES
        asked = watch_asking(filesystem)
        for _ in range(2):
            asked.clear()
            handle = await filesystem.open(inode.ino, os.O_RDONLY, WHO)
            for offset in range(0, STRIPES * STRIPE_PAYLOAD_BYTES_MAX, MIB):
                await filesystem.read(handle, offset, MIB)
                reached = min(
                    STRIPES - 1, (offset + MIB) // STRIPE_PAYLOAD_BYTES_MAX + READAHEAD_STRIPES // 2
                )
                assert set(stripes[: reached + 1]) <= set(asked)
            assert sorted(asked) == sorted(stripes)
            filesystem.release(handle)
        asked.clear()
        handle = await filesystem.open(inode.ino, os.O_RDONLY, WHO)
        for offset in (9 * MIB, 2 * MIB, 14 * MIB):
            await filesystem.read(handle, offset, MIB)
        assert asked == [], "these reads do not follow each other"
        filesystem.release(handle)
