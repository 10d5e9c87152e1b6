"""The metadata database after a crash: behind the drives' log, ahead of it, gone, or damaged.

In every window the tree is what it was at the newest commit the drives hold, and the metadata agrees with itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from trio.testing import trio_test

from tests.support.builders import Store, complaints, files_of, put, remove
from tests.support.power import Fate, PoweredDrives, copy_database

FIRST = b"as of the first commit"
SECOND = random.Random(2).randbytes(300_000)


async def two_commits(tmp_path: Path) -> tuple[Store, Store, Store]:
    """(a killed store with two commits, its copy with the first one only, the same for the drives and database)."""
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        await put(filesystem, b"old", FIRST)
        await put(filesystem, b"both", FIRST)
        await filesystem.sync()
        first = store.copy(tmp_path / "first")
        await put(filesystem, b"both", SECOND)
        await put(filesystem, b"new", SECOND)
        await remove(filesystem, b"old")
        await filesystem.sync()
        second = store.copy(tmp_path / "second")
        # What comes after is never on the copies: closing commits it.
        await put(filesystem, b"later", b"never synced by the tests")
    return store, first, second


AFTER_FIRST = {b"old": FIRST, b"both": FIRST}
AFTER_SECOND = {b"both": SECOND, b"new": SECOND}


@pytest.mark.parametrize("rebooted", [False, True])
@trio_test
async def test_clean_or_killed_is_at_the_last_commit(tmp_path: Path, rebooted: bool) -> None:
    _, first, second = await two_commits(tmp_path)
    for store, expected in ((first, AFTER_FIRST), (second, AFTER_SECOND)):
        if rebooted:
            store.reboot()
        assert await files_of(store) == expected
        assert complaints(store.database) == []


@pytest.mark.parametrize("rebooted", [False, True])
@trio_test
async def test_database_behind_is_brought_up_to_the_log(tmp_path: Path, rebooted: bool) -> None:
    _, first, second = await two_commits(tmp_path)
    second.replace_database(first)
    if rebooted:
        second.reboot()
    async with second.open() as filesystem:
        assert any("applied" in report for report in filesystem.status().reports)
    assert await files_of(second) == AFTER_SECOND
    assert complaints(second.database) == []


@trio_test
async def test_database_ahead_goes_back_to_the_log(tmp_path: Path) -> None:
    """Its WAL was written back by the kernel, the commit needle was not."""
    _, first, second = await two_commits(tmp_path)
    first.replace_database(second)
    first.reboot()
    async with first.open() as filesystem:
        assert any("dropped" in report for report in filesystem.status().reports)
    assert await files_of(first) == AFTER_FIRST
    assert complaints(first.database) == []


@trio_test
async def test_database_ahead_by_several_commits_goes_back_too(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        await put(filesystem, b"file", FIRST)
        await filesystem.sync()
        early = store.copy(tmp_path / "early")
        for number in range(5):
            await put(filesystem, b"file", b"%d" % number)
            await filesystem.sync()
        late = copy_database(store, tmp_path / "late")
    early.replace_database(late)
    early.reboot()
    assert await files_of(early) == {b"file": FIRST}
    assert complaints(early.database) == []


@trio_test
async def test_database_ahead_by_the_first_commit_of_all_opens_also_while_drives_are_away(
    tmp_path: Path,
) -> None:
    store = Store.make(tmp_path / "store")
    early = store.copy(tmp_path / "early")
    async with store.open() as filesystem:
        await put(filesystem, b"file", FIRST)
        await filesystem.sync()
        late = copy_database(store, tmp_path / "late")
    early.replace_database(late)
    early.reboot()
    early.hide(1)
    early.hide(4)
    assert await files_of(early) == {}
    early.bring_back(1)
    early.bring_back(4)
    assert await files_of(early) == {}
    assert complaints(early.database) == []


@trio_test
async def test_work_goes_on_after_a_database_that_was_ahead(tmp_path: Path) -> None:
    """The commit that was given up and the one made instead of it have the same number: the later one counts."""
    _, first, second = await two_commits(tmp_path)
    first.replace_database(second)
    first.reboot()
    async with first.open() as filesystem:
        await put(filesystem, b"instead", SECOND)
        await filesystem.sync()
    expected = {**AFTER_FIRST, b"instead": SECOND}
    assert await files_of(first) == expected
    # The database that was ahead comes back once more: it is on no branch now.
    first.replace_database(second)
    first.reboot()
    assert await files_of(first) == expected
    assert complaints(first.database) == []


@pytest.mark.parametrize("rebooted", [False, True])
@trio_test
async def test_database_gone_is_rebuilt(tmp_path: Path, rebooted: bool) -> None:
    _, _, second = await two_commits(tmp_path)
    second.lose_database()
    if rebooted:
        second.reboot()
    async with second.open() as filesystem:
        assert any("rebuilt" in report for report in filesystem.status().reports)
    assert await files_of(second) == AFTER_SECOND
    assert complaints(second.database) == []


@trio_test
async def test_whole_meta_directory_gone_is_rebuilt(tmp_path: Path) -> None:
    _, _, second = await two_commits(tmp_path)
    for file in (second.path / "meta").iterdir():
        file.unlink()
    (second.path / "meta").rmdir()
    assert await files_of(second) == AFTER_SECOND


def _garbage(path: Path) -> None:
    path.write_bytes(random.Random(3).randbytes(path.stat().st_size))


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _zeroed_head(path: Path) -> None:
    path.write_bytes(bytes(100) + path.read_bytes()[100:])


@pytest.mark.parametrize("harm", [_garbage, _cut_short, _empty, _zeroed_head])
@pytest.mark.parametrize("wal", ["kept", "gone"])
@trio_test
async def test_database_damaged_is_rebuilt(tmp_path: Path, harm: Callable[[Path], None], wal: str) -> None:
    _, _, second = await two_commits(tmp_path)
    harm(second.database)
    if wal == "gone":
        second.database.with_name("meta.sqlite-wal").unlink(missing_ok=True)
    assert await files_of(second) == AFTER_SECOND
    assert complaints(second.database) == []


@pytest.mark.parametrize("seed", range(6))
@trio_test
async def test_database_log_torn_anywhere_is_applied_from_the_drives(tmp_path: Path, seed: int) -> None:
    """SQLite's WAL is not synced before a checkpoint: any part of it may be missing or old after a power cut."""
    dice = random.Random(seed)
    _, _, second = await two_commits(tmp_path)
    wal = second.database.with_name("meta.sqlite-wal")
    content = bytearray(wal.read_bytes())
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(content)) // 512 * 512
        content[at : at + 512] = bytes(len(content[at : at + 512]))
    wal.write_bytes(content[: dice.randrange(len(content))] if seed % 2 else content)
    second.reboot()
    assert await files_of(second) == AFTER_SECOND
    assert complaints(second.database) == []


@trio_test
async def test_rebuilding_that_is_killed_half_way_is_done_again(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store")
    expected = {}
    async with store.open() as filesystem:
        for number in range(12):
            expected[b"%d" % number] = b"%d" % number * 100
            await put(filesystem, b"%d" % number, expected[b"%d" % number])
            await filesystem.sync()
    copy = store.copy(tmp_path / "copy")
    copy.lose_database()
    async with copy.open():
        half = copy.copy(tmp_path / "half")
    wal = half.database.with_name("meta.sqlite-wal")
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size * 2 // 3])
    half.reboot()
    assert await files_of(half) == expected
    assert complaints(half.database) == []


@trio_test
async def test_power_cut_right_after_an_fsync_loses_nothing(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store")
    power = PoweredDrives()
    async with store.open(opener=power) as filesystem:
        old = copy_database(store, tmp_path / "old")
        await put(filesystem, b"small", FIRST)
        await put(filesystem, b"large", SECOND)
        await filesystem.sync()
        await put(filesystem, b"not synced", SECOND)
        for number, fate in enumerate(Fate):
            left = power.cut(store, tmp_path / f"left{number}", fate, random.Random(number))
            left.replace_database(old)
            assert await files_of(left) == {b"small": FIRST, b"large": SECOND}, fate
            assert complaints(left.database) == []
