"""Promise 1 beside a drive that hangs: an fsync returns, and the power may go, and that drive with it."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import WHO, Store, complaints, eventually, files_in, files_of, put
from tests.support.power import Fate, PoweredDrives
from tests.support.slow_drive import SlowDrives
from tests.support.small_drives import SmallDrives

PATIENCE_S = 30.0
FILES = {
    b"small": b"a few bytes",
    b"text": b"compressible " * 30_000,
    b"large": random.Random(1).randbytes(5_000_000),
}


@pytest.fixture(autouse=True)
def _short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DRIVE_DEADLINE_S", 0.5)
    monkeypatch.setattr(limits, "DRIVE_DEADLINE_S_MAX", 2.0)
    monkeypatch.setattr(limits, "DRIVE_HANGING_S", 0.1)
    monkeypatch.setattr(limits, "WRITE_OFF_S", 0.1)


async def fsync(filesystem: FileSystem, name: bytes) -> None:
    found = filesystem.lookup(ROOT_INO, name)
    assert found is not None
    handle = await filesystem.open(found.ino, os.O_RDWR, WHO)
    await filesystem.fsync(handle)
    filesystem.release(handle)


@pytest.mark.parametrize("operation", ["sync", "write", "create", "read"])
@pytest.mark.parametrize("hung", [0, 4])
@trio_test
async def test_an_fsync_returns_and_everything_is_there_without_the_drive_that_hung(
    tmp_path: Path, hung: int, operation: str
) -> None:
    """Drive 0 holds a copy of every commit, drive 4 none. The power goes while it still hangs."""
    store = Store.make(tmp_path / "store", 4, 2)
    power = PoweredDrives()
    drives = SlowDrives(power)
    async with store.open(opener=drives) as filesystem:
        await put(filesystem, b"small", b"before")
        await fsync(filesystem, b"small")
        drives[hung].hang(operation)
        try:
            with trio.fail_after(PATIENCE_S):
                for name, data in FILES.items():
                    await put(filesystem, name, data)
                await fsync(filesystem, b"large")
                assert await files_in(filesystem) == FILES
            left = power.cut(store, tmp_path / "left", Fate.LOST, random.Random(3))
        finally:
            drives.release()
    left.lose_database()
    without = left.copy(tmp_path / "without")
    shutil.rmtree(without.drive(hung))
    assert await files_of(without) == FILES
    assert await files_of(left) == FILES
    for copy in (without, left):
        assert complaints(copy.database) == []


@pytest.mark.parametrize("operation", ["look", "sync"])
@trio_test
async def test_a_store_opens_without_a_drive_that_hangs_and_takes_it_in_when_it_answers(
    tmp_path: Path, operation: str
) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        for name, data in FILES.items():
            await put(filesystem, name, data)
    drives = SlowDrives()
    drives[1].hang(operation)
    with trio.fail_after(PATIENCE_S):
        async with store.open(opener=drives) as filesystem:
            assert filesystem.status().drives[1].state == "absent"
            assert "does not answer" in filesystem.status().drives[1].reason
            assert await files_in(filesystem) == FILES
            drives.release()
            await eventually(lambda: filesystem.status().drives[1].state == "online")
    assert complaints(store.database) == []


@trio_test
async def test_m_drives_hang_and_any_of_them_may_be_lost(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", 4, 2)
    power = PoweredDrives()
    drives = SlowDrives(power)
    async with store.open(opener=drives) as filesystem:
        await put(filesystem, b"small", b"before")
        await filesystem.sync()
        drives[0].hang("sync")
        drives[3].hang("write", "sync")
        try:
            with trio.fail_after(PATIENCE_S):
                for name, data in FILES.items():
                    await put(filesystem, name, data)
                await filesystem.sync()
            left = power.cut(store, tmp_path / "left", Fate.LOST, random.Random(3))
        finally:
            drives.release()
    for lost in [(), (0,), (3,), (0, 3)]:
        copy = left.copy(tmp_path / "-".join(["lost", *map(str, lost)]))
        for number in lost:
            shutil.rmtree(copy.drive(number))
        assert await files_of(copy) == FILES, lost


@trio_test
async def test_a_late_answer_after_the_drive_was_set_aside_does_no_harm(tmp_path: Path) -> None:
    """The hung write arrives after all, behind everything: the tree is what it was, also after a power cut."""
    store = Store.make(tmp_path / "store", 2, 1)
    power = PoweredDrives()
    drives = SlowDrives(power)
    expected = dict(FILES)
    async with store.open(opener=drives) as filesystem:
        with trio.fail_after(PATIENCE_S):
            await put(filesystem, b"small", b"before")
            await filesystem.sync()
            drives[1].hang("write")
            try:
                for name, data in FILES.items():
                    await put(filesystem, name, data)
                await filesystem.sync()
            finally:
                drives.release()
            for number in range(3):
                expected[b"after%d" % number] = random.Random(number).randbytes(200_000)
                await put(filesystem, b"after%d" % number, expected[b"after%d" % number])
                await filesystem.sync()
            assert await files_in(filesystem) == expected
            left = power.cut(store, tmp_path / "left", Fate.SECTORS, random.Random(3))
    left.lose_database()
    assert await files_of(left) == expected
    assert await files_of(store) == expected
    assert complaints(left.database) == []


@trio_test
async def test_full_and_hanging_together(tmp_path: Path) -> None:
    """Writers of a full store get ENOSPC, not silence, while a drive hangs; what was accepted is kept."""
    store = Store.make(tmp_path / "store", 2, 1, spare=1)
    drives = SlowDrives(SmallDrives(12 << 20))
    files: dict[bytes, bytes] = {}
    async with store.open(opener=drives) as filesystem:
        await put(filesystem, b"first", b"first")
        files[b"first"] = b"first"
        await filesystem.sync()
        drives[3].hang("write", "sync", "create")
        try:
            with trio.fail_after(PATIENCE_S):
                for number in itertools.count():
                    name, data = b"f%d" % number, random.Random(number).randbytes(500_000)
                    try:
                        await put(filesystem, name, data)
                    except CiaosError as error:
                        assert error.errno == errno.ENOSPC
                        found = filesystem.lookup(ROOT_INO, name)
                        if found is not None:
                            await filesystem.unlink(ROOT_INO, name)
                        break
                    files[name] = data
                await filesystem.sync()
                assert await files_in(filesystem) == files
                killed = store.copy(tmp_path / "killed")
        finally:
            drives.release()
    assert len(files) > 10
    shutil.rmtree(killed.drive(3))
    assert await files_of(killed) == files
