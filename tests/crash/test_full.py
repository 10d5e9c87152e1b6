"""Promise 4: full is not broken. On a full store everything stays readable, renamable and deletable; what was accepted
survives, fsync included; and the space of what is deleted comes back."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base.errors import CiaosError, FsError
from ciaosfs.fs.attributes import SetAttributes
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import WHO, Store, complaints, content, files_in, files_of, put, remove
from tests.support.small_drives import SmallDrives

MIB = 1 << 20
CAPACITY = 24 * MIB


async def fill(
    filesystem: FileSystem, files: dict[bytes, bytes], length: int, prefix: bytes, sync_every: int = 0
) -> int:
    """Put files until one is refused; notes what was accepted, returns how many bytes."""
    accepted = 0
    for number in range(100_000):
        name, data = b"%s%d" % (prefix, number), random.Random(number).randbytes(length)
        try:
            await put(filesystem, name, data)
        except CiaosError as error:
            assert error.errno == errno.ENOSPC
            found = filesystem.lookup(ROOT_INO, name)
            if found is not None:
                files[name] = await content(filesystem, found.ino)
                assert data.startswith(files[name])
            return accepted
        files[name] = data
        accepted += length
        if sync_every and number % sync_every == 0:
            await filesystem.sync()
        await trio.lowlevel.checkpoint()
    raise AssertionError("it is never full")


@pytest.mark.parametrize("length", [3 * MIB, 100_000, 3_000])
@trio_test
async def test_a_full_store_works_but_for_what_needs_room(tmp_path: Path, length: int) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    drives = SmallDrives(CAPACITY if length > 10_000 else CAPACITY // 2)
    files: dict[bytes, bytes] = {}
    async with store.open(drives) as filesystem:
        await fill(filesystem, files, length, b"f", sync_every=200)
        await filesystem.sync()
        assert await files_in(filesystem) == files
        names = sorted(files)
        await filesystem.rename(ROOT_INO, names[0], ROOT_INO, b"renamed", 0)
        files[b"renamed"] = files.pop(names[0])
        found = filesystem.lookup(ROOT_INO, names[1])
        assert found is not None
        await filesystem.setattr(found.ino, SetAttributes(mode=0o600, size=10), WHO)
        files[names[1]] = files[names[1]][:10]
        await remove(filesystem, names[2])
        del files[names[2]]
        await filesystem.sync()
        killed = store.copy(tmp_path / "killed")
    assert await files_of(killed) == files
    assert await files_of(store) == files
    assert complaints(store.database) == []


@pytest.mark.parametrize("length", [3 * MIB, 100_000])
@trio_test
async def test_what_is_deleted_can_be_written_again_and_again(tmp_path: Path, length: int) -> None:
    """Five times: nothing leaks. Writers need not wait for anything by themselves."""
    store = Store.make(tmp_path / "store", 2, 1)
    amounts = []
    async with store.open(SmallDrives(CAPACITY)) as filesystem:
        for turn in range(5):
            files: dict[bytes, bytes] = {}
            amounts.append(await fill(filesystem, files, length, b"%d-" % turn))
            await filesystem.sync()
            assert await files_in(filesystem) == files
            for name in files:
                await remove(filesystem, name)
    assert amounts[0] > CAPACITY
    assert min(amounts[1:]) > 0.85 * amounts[0]
    assert complaints(store.database) == []


@trio_test
async def test_half_of_the_files_deleted_makes_room_for_about_as_much(tmp_path: Path) -> None:
    """Every other one, so that they share stripes with what stays."""
    store = Store.make(tmp_path / "store", 2, 1)
    files: dict[bytes, bytes] = {}
    async with store.open(SmallDrives(CAPACITY)) as filesystem:
        accepted = await fill(filesystem, files, 100_000, b"first")
        for name in sorted(files)[::2]:
            await remove(filesystem, name)
            del files[name]
        again = await fill(filesystem, files, 100_000, b"second")
        await filesystem.sync()
        assert await files_in(filesystem) == files
    assert again > 0.3 * accepted
    assert await files_of(store) == files


@trio_test
async def test_overwriting_on_a_full_store_keeps_the_old_or_the_new(tmp_path: Path) -> None:
    """Nothing is changed in place, so overwriting needs room too; what is refused leaves the old bytes."""
    dice = random.Random(1)
    store = Store.make(tmp_path / "store", 2, 1)
    files: dict[bytes, bytes] = {}
    async with store.open(SmallDrives(CAPACITY)) as filesystem:
        await fill(filesystem, files, 500_000, b"f")
        await filesystem.sync()
        names = sorted(name for name in files if files[name])
        refused = 0
        for _ in range(200):
            name = dice.choice(names)
            found = filesystem.lookup(ROOT_INO, name)
            assert found is not None
            handle = await filesystem.open(found.ino, os.O_RDWR, WHO)
            at = dice.randrange(len(files[name]))
            new = dice.randbytes(min(20_000, len(files[name]) - at))
            try:
                await filesystem.write(handle, at, new)
            except FsError as error:
                assert error.errno == errno.ENOSPC
                refused += 1
            else:
                files[name] = files[name][:at] + new + files[name][at + len(new) :]
            filesystem.release(handle)
            if dice.random() < 0.1:
                await filesystem.sync()
        await filesystem.sync()
        assert await files_in(filesystem) == files
        killed = store.copy(tmp_path / "killed")
    assert await files_of(killed) == files
