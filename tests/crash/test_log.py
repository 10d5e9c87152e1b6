"""The drives' log after a crash: torn tails, lost copies, holes, and branches that were given up."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.errors import DriveGoneError, LogDamagedError
from tests.support.builders import Store, complaints, eventually, files_of, put, remove
from tests.support.needles import Copy, commit_copies, last_commit
from tests.support.power import copy_database

ONE = {b"file": b"first"}
TWO = {b"file": b"second, and longer than the first"}


async def two_commits(tmp_path: Path) -> tuple[Store, Store]:
    """A killed store with two commits, and its database as of the first."""
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        await put(filesystem, b"file", ONE[b"file"])
        await filesystem.sync()
        before = copy_database(store, tmp_path / "before")
        await put(filesystem, b"file", TWO[b"file"])
        await filesystem.sync()
        return store.copy(tmp_path / "killed"), before


def zero(copy: Copy) -> None:
    with copy.path.open("r+b") as file:
        file.seek(copy.offset)
        file.write(bytes(copy.length))


def truncate_before(copy: Copy) -> None:
    os.truncate(copy.path, copy.offset)


def truncate_inside(copy: Copy) -> None:
    os.truncate(copy.path, copy.offset + copy.length // 2)


def flip(copy: Copy) -> None:
    with copy.path.open("r+b") as file:
        file.seek(copy.offset + copy.length // 2)
        byte = file.read(1)[0]
        file.seek(copy.offset + copy.length // 2)
        file.write(bytes([byte ^ 0x10]))


HARMS = [zero, truncate_before, truncate_inside, flip]


@trio_test
async def test_commits_lie_on_one_drive_more_than_may_be_lost(tmp_path: Path) -> None:
    killed, _ = await two_commits(tmp_path)
    assert len({copy.drive for copy in last_commit(killed)}) == 3


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("database", ["behind", "gone"])
@trio_test
async def test_needle_on_one_drive_only_counts(
    tmp_path: Path, harm: Callable[[Copy], None], database: str
) -> None:
    killed, before = await two_commits(tmp_path)
    for copy in last_commit(killed)[1:]:
        harm(copy)
    if database == "gone":
        killed.lose_database()
    else:
        killed.replace_database(before)
    killed.reboot()
    assert await files_of(killed) == TWO
    assert complaints(killed.database) == []


@pytest.mark.parametrize("rebooted", [False, True])
@pytest.mark.parametrize("database", ["behind", "at the commit", "gone"])
@trio_test
async def test_what_is_built_on_a_needle_on_one_drive_survives_the_loss_of_that_drive(
    tmp_path: Path, rebooted: bool, database: str
) -> None:
    """Killed while the copies were written: the commit counts, and later ones stand on it. Found by a model run."""
    killed, before = await two_commits(tmp_path)
    only, *others = last_commit(killed)
    for copy in others:
        truncate_before(copy)
    if database == "gone":
        killed.lose_database()
    elif database == "behind":
        killed.replace_database(before)
    if rebooted:
        killed.reboot()
    async with killed.open() as filesystem:
        await put(filesystem, b"next", b"next")
        await filesystem.sync()
        left = killed.copy(tmp_path / "left")
    left.hide(only.drive)
    left.lose_database()
    assert await files_of(left) == {**TWO, b"next": b"next"}
    assert complaints(left.database) == []


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("database", ["behind", "ahead", "gone"])
@trio_test
async def test_log_tail_torn_on_all_drives_is_the_commit_before(
    tmp_path: Path, harm: Callable[[Copy], None], database: str
) -> None:
    killed, before = await two_commits(tmp_path)
    for copy in last_commit(killed):
        harm(copy)
    if database == "gone":
        killed.lose_database()
    elif database == "behind":
        killed.replace_database(before)
    killed.reboot()
    assert await files_of(killed) == ONE
    # and once more, now on the log that was continued
    killed.lose_database()
    assert await files_of(killed) == ONE
    assert complaints(killed.database) == []


@trio_test
async def test_a_gap_in_the_log_is_said_and_not_passed_over(tmp_path: Path) -> None:
    """All copies of an older commit are bad and the database is gone: no tree is better than a wrong one."""
    killed, _ = await two_commits(tmp_path)
    first = [copy for copy in commit_copies(killed) if copy.sequence == 1]
    for copy in first:
        flip(copy)
    killed.lose_database()
    with pytest.raises(LogDamagedError):
        await files_of(killed)


@trio_test
async def test_a_gap_below_the_database_does_not_matter(tmp_path: Path) -> None:
    killed, _ = await two_commits(tmp_path)
    for copy in commit_copies(killed):
        if copy.sequence == 1:
            flip(copy)
    killed.reboot()
    assert await files_of(killed) == TWO


@pytest.mark.parametrize("rounds", [1, 3])
@trio_test
async def test_two_mounts_with_a_dropped_commit_between_take_the_newer_branch(
    tmp_path: Path, rounds: int
) -> None:
    """The copies of dropped commits are on the drives for ever; the branch with the newer epoch counts."""
    killed, before = await two_commits(tmp_path)
    expected = dict(ONE)
    for number in range(rounds):
        torn = last_commit(killed)
        kept = {copy: copy.path.read_bytes()[copy.offset : copy.offset + copy.length] for copy in torn}
        for copy in torn:
            zero(copy)
        killed.replace_database(before)
        killed.reboot()
        async with killed.open() as filesystem:
            await put(filesystem, b"%d" % number, b"instead")
            await filesystem.sync()
            expected[b"%d" % number] = b"instead"
            following = killed.copy(tmp_path / f"killed{number}")
            before = copy_database(killed, tmp_path / f"before{number}")
            await put(filesystem, b"torn", b"the next round tears this one")
            await filesystem.sync()
            torn_next = killed.copy(tmp_path / f"torn{number}")
        # The dropped commit's needles turn up again, whole.
        for store in (following, torn_next):
            for copy, data in kept.items():
                with (store.path / copy.path.relative_to(killed.path)).open("r+b") as file:
                    file.seek(copy.offset)
                    file.write(data)
        for loss in ("nothing", "database"):
            if loss == "database":
                following.lose_database()
            following.reboot()
            assert await files_of(following) == expected
            assert complaints(following.database) == []
        killed = torn_next


@trio_test
async def test_a_clock_that_was_set_back_does_not_bring_a_dropped_branch_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        await put(filesystem, b"file", ONE[b"file"])
        await filesystem.sync()
    before = copy_database(store, tmp_path / "before")
    async with store.open() as filesystem:
        await put(filesystem, b"file", TWO[b"file"])
        await filesystem.sync()
        killed = store.copy(tmp_path / "killed")
    kept = {copy: copy.path.read_bytes() for copy in last_commit(killed)}
    torn = [copy for copy in last_commit(killed)]
    # The commit survives; the data it brought does not: it is in doubt, and dropped.
    for copy in torn:
        with copy.path.open("r+b") as file:
            file.seek(4096)
            file.write(bytes(copy.offset - 4096))
    killed.replace_database(before)
    killed.reboot()
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 3_600_000_000_000)
    async with killed.open() as filesystem:
        await put(filesystem, b"after", b"an hour ago")
        await put(filesystem, b"large", bytes(300_000))
        await filesystem.sync()
    for copy, data in kept.items():
        with copy.path.open("r+b") as file:
            file.write(data)
    expected = {**ONE, b"after": b"an hour ago", b"large": bytes(300_000)}
    for loss in ("nothing", "database", "database"):
        if loss == "database":
            killed.lose_database()
        killed.reboot()
        assert await files_of(killed) == expected
        assert complaints(killed.database) == []


@trio_test
async def test_a_clock_that_was_set_back_gives_no_volume_or_stripe_a_used_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Log volumes of the last commit are not in the metadata yet: their ids are known from the drives only."""
    store = Store.make(tmp_path / "store")
    real = time.time_ns
    expected = {}
    for number in range(4):
        monkeypatch.setattr(time, "time_ns", lambda back=number: real() - back * 3_600_000_000_000)
        async with store.open() as filesystem:
            expected[b"%d" % number] = random.Random(number).randbytes(200_000 if number % 2 else 200)
            await put(filesystem, b"%d" % number, expected[b"%d" % number])
            await filesystem.sync()
            assert all(drive.state == "online" for drive in filesystem.status().drives)
        names = [path.name for drive in store.config.drives for path in store.volumes(drive.number)]
        assert len(set(names)) == len(names)
    assert await files_of(store) == expected
    store.lose_database()
    assert await files_of(store) == expected
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@trio_test
async def test_holes_in_the_log_volumes_do_not_hide_the_commits_behind_them(tmp_path: Path) -> None:
    """Small files lie between the commits; when they are deleted their pages are given back."""
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        for number in range(12):
            await put(filesystem, b"%d" % number, random.Random(number).randbytes(100_000))
            await filesystem.sync()
        full = store.used_bytes()
        for number in range(10):
            await remove(filesystem, b"%d" % number)
        await filesystem.sync()
        await eventually(lambda: store.used_bytes() < full - 2_000_000)
        await put(filesystem, b"end", b"end")
        await filesystem.sync()
        killed = store.copy(tmp_path / "killed")
    killed.lose_database()
    killed.reboot()
    expected = {b"%d" % number: random.Random(number).randbytes(100_000) for number in (10, 11)}
    assert await files_of(killed) == {**expected, b"end": b"end"}
    assert complaints(killed.database) == []


@trio_test
async def test_stripes_of_a_forgotten_commit_are_dead_space_and_nothing_else(tmp_path: Path) -> None:
    """Killed between the write of stripes and their commit: the leaked needles disturb nobody."""
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        await put(filesystem, b"file", ONE[b"file"])
        await filesystem.sync()
        await put(filesystem, b"leaked", random.Random(1).randbytes(4 << 20))
        await eventually(lambda: filesystem.status().pending_bytes == 0)
        killed = store.copy(tmp_path / "killed")
    for number in range(3):
        assert await files_of(killed) == (ONE if number == 0 else {**ONE, b"next": b"next"})
        assert complaints(killed.database) == []
        async with killed.open() as filesystem:
            assert filesystem.status().stripes_by_missing.keys() <= {0}
            await put(filesystem, b"next", b"next")
        killed.lose_database()


@pytest.mark.parametrize(("data_count", "parity_count"), [(1, 1), (2, 2)])
@trio_test
async def test_one_half_of_the_drives_and_then_the_other_is_refused_and_not_a_second_history(
    tmp_path: Path, data_count: int, parity_count: int
) -> None:
    """More is away in all than parity allows; each half alone could be opened, one of them at an old moment."""
    store = Store.make(tmp_path / "store", data_count, parity_count)
    one, other = range(parity_count), range(parity_count, 2 * parity_count)
    async with store.open() as filesystem:
        await put(filesystem, b"file", ONE[b"file"])
    for number in one:
        store.hide(number)
    async with store.open() as filesystem:
        for name in (b"a", b"b", b"c"):
            await put(filesystem, name, TWO[b"file"])
            await filesystem.sync()
    for number in other:
        store.hide(number)
    for number in one:
        store.bring_back(number)
    with pytest.raises(DriveGoneError):
        await files_of(store)
    for number in other:
        store.bring_back(number)
    expected = {**ONE, b"a": TWO[b"file"], b"b": TWO[b"file"], b"c": TWO[b"file"]}
    assert await files_of(store) == expected
    assert complaints(store.database) == []
