"""What a writer is told when there is no room."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.errors import DriveGoneError
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import WHO, Store, content, put


@trio_test
async def test_writers_hear_that_drives_are_missing_and_not_that_they_are_full(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        ino = await put(filesystem, b"file", b"before")
        await filesystem.sync()
        for number in (0, 1):
            store.hide(number)
        await filesystem._chunks.refresh_drives()
        handle = await filesystem.open(ino, os.O_RDWR, WHO)
        with pytest.raises(DriveGoneError, match="Only 1 drives can be written to and 2 are needed") as told:
            await filesystem.write(handle, 0, b"x" * 5000)
        assert told.value.errno == errno.EIO
        with pytest.raises(DriveGoneError):
            await put(filesystem, b"another", b"")
        assert filesystem.lookup(ROOT_INO, b"another") is None
        for number in (0, 1):
            store.bring_back(number)
        await filesystem._chunks.refresh_drives()
        assert await content(filesystem, ino) == b"before", "nothing of it was taken"
        await filesystem.write(handle, 0, b"after!")
        filesystem.release(handle)
        await filesystem.sync()
        assert await content(filesystem, ino) == b"after!"
    caplog.clear()
