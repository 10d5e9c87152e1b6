"""What a sync answers when the kernel could not hand over everything that was written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from ciaosfsd.control.call import Call, Caller, Connection, Tally
from ciaosfsd.control.handlers_admin import AdminHandlers
from trio.testing import trio_test

from ciaosfs.base.errors import DriveGoneError, NoSpaceError, StoreError
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import WHO, Store, content, put

CALL = Call("sync", Caller(1, 0, 0, (), is_owner=True), Connection(Tally(), 0))


class Kernel:
    """Its cache, as far as syncfs(2) tells of it."""

    def __init__(self) -> None:
        self.code = 0

    async def flush(self) -> None:
        if self.code:
            raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize(
    ("code", "refusal"), [(errno.ENOSPC, NoSpaceError), (errno.EIO, StoreError), (errno.ENOTCONN, StoreError)]
)
@trio_test
async def test_what_was_taken_is_on_the_drives_though_the_kernel_could_not_hand_over_the_rest(
    tmp_path: Path, code: int, refusal: type[Exception]
) -> None:
    store, kernel = Store.make(tmp_path / "store", 2, 1), Kernel()
    async with store.open() as filesystem:
        admin = AdminHandlers(store.config, filesystem, Path("/mnt"), kernel.flush, lambda: None, list)
        before = await admin.sync(CALL)
        await put(filesystem, b"file", b"content")
        kernel.code = code
        with pytest.raises(refusal, match="everything else is on the drives"):
            await admin.sync(CALL)
        assert filesystem.status().pending_bytes == 0
        assert filesystem.status().commit.sequence > before["commit"]


@trio_test
async def test_a_refusal_is_told_of_until_who_wrote_has_closed_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, kernel = Store.make(tmp_path / "store", 2, 1), Kernel()
    async with store.open() as filesystem:
        admin = AdminHandlers(store.config, filesystem, Path("/mnt"), kernel.flush, lambda: None, list)
        ino = await put(filesystem, b"file", b"before")
        await filesystem.sync()
        handles = [await filesystem.open(ino, os.O_RDWR, WHO) for _ in range(2)]
        for number in (0, 1):
            store.hide(number)
        await filesystem._chunks.refresh_drives()
        with pytest.raises(DriveGoneError):
            await filesystem.write(handles[0], 0, b"refused")
        kernel.code = errno.EIO
        for number in (0, 1):
            store.bring_back(number)
        await filesystem._chunks.refresh_drives()
        for handle in handles:
            with pytest.raises(StoreError):
                await admin.sync(CALL)
            filesystem.release(handle)
        assert (await admin.sync(CALL))["commit"] == filesystem.status().commit.sequence
        kernel.code = errno.ENOTCONN
        with pytest.raises(StoreError):  # nobody was ever told of that
            await admin.sync(CALL)
        found = filesystem.lookup(ROOT_INO, b"file")
        assert found is not None and await content(filesystem, found.ino) == b"before"
    caplog.clear()
