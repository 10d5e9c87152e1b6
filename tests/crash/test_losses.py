"""Promise 1, all together: right after an fsync the power goes, m drives are lost, and the database as well."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.errors import CiaosError, DriveGoneError
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import WHO, Store, complaints, files_of, put
from tests.support.needles import last_commit
from tests.support.power import Fate, PoweredDrives

FILES = {
    b"empty": b"",
    b"small": b"a few bytes",
    b"text": b"compressible " * 30_000,
    b"large": random.Random(1).randbytes(5_000_000),
}


async def right_after_an_fsync(tmp_path: Path, data_count: int, parity_count: int, spare: int) -> Store:
    """The store as a power cut leaves it when an fsync has just returned and other writes are under way."""
    store = Store.make(tmp_path / "store", data_count, parity_count, spare)
    power = PoweredDrives()
    async with store.open(opener=power) as filesystem:
        for name, data in FILES.items():
            await put(filesystem, name, data)
        found = filesystem.lookup(ROOT_INO, b"small")
        assert found is not None
        handle = await filesystem.open(found.ino, os.O_RDWR, WHO)
        await filesystem.fsync(handle)
        filesystem.release(handle)
        await put(filesystem, b"after", random.Random(2).randbytes(5_000_000))
        left = power.cut(store, tmp_path / "left", Fate.LOST, random.Random(3))
    left.lose_database()
    return left


@pytest.mark.parametrize(
    ("data_count", "parity_count", "spare"), [(4, 2, 0), (2, 1, 0), (1, 2, 0), (2, 1, 2), (1, 1, 3)]
)
@trio_test
async def test_any_m_drives_and_the_database_right_after_an_fsync(
    tmp_path: Path, data_count: int, parity_count: int, spare: int
) -> None:
    left = await right_after_an_fsync(tmp_path, data_count, parity_count, spare)
    numbers = range(len(left.config.drives))
    every = list(itertools.combinations(numbers, parity_count))
    for lost in random.Random(4).sample(every, min(6, len(every))):
        copy = left.copy(tmp_path / "-".join(["lost", *map(str, lost)]))
        for number in lost:
            shutil.rmtree(copy.drive(number))
        assert await files_of(copy) == FILES, lost
        assert complaints(copy.database) == []


@trio_test
async def test_the_drives_that_hold_the_commit_are_the_ones_that_are_lost(tmp_path: Path) -> None:
    left = await right_after_an_fsync(tmp_path, 4, 2, 0)
    holders = sorted({copy.drive for copy in last_commit(left)})
    for kept in holders:
        copy = left.copy(tmp_path / f"kept{kept}")
        for number in set(holders) - {kept}:
            shutil.rmtree(copy.drive(number))
        assert await files_of(copy) == FILES


@trio_test
async def test_more_drives_lost_than_parity_is_said_and_changes_nothing(tmp_path: Path) -> None:
    left = await right_after_an_fsync(tmp_path, 4, 2, 0)
    for number in (0, 3, 5):
        left.hide(number)
    with pytest.raises(CiaosError) as refused:
        await files_of(left)
    assert isinstance(refused.value, DriveGoneError)
    for number in (0, 3, 5):
        left.bring_back(number)
    assert await files_of(left) == FILES


@trio_test
async def test_what_is_written_without_two_drives_survives_them_and_the_database(tmp_path: Path) -> None:
    """Promise 1 with the two lost drives gone from before the write on."""
    left = await right_after_an_fsync(tmp_path, 4, 2, 0)
    left.hide(1)
    left.hide(4)
    power = PoweredDrives()
    expected = {**FILES, b"degraded": random.Random(9).randbytes(2_000_000), b"more": b"more"}
    async with left.open(opener=power) as filesystem:
        for name in (b"degraded", b"more"):
            await put(filesystem, name, expected[name])
        await filesystem.sync()
        again = power.cut(left, tmp_path / "again", Fate.LOST, random.Random(5))
    again.lose_database()
    assert await files_of(again) == expected
    for number in (1, 4):
        away = again.drive(number)
        away.with_name(away.name + ".away").rename(away)
    again.lose_database()
    assert await files_of(again) == expected
    assert complaints(again.database) == []
