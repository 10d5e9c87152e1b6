"""Whatever the database holds, `recover` makes it what the drives say; and gives up nothing that may come back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.errors import CiaosError, DriveGoneError, LogDamagedError
from ciaosfs.drive.workers import Workers
from ciaosfs.offline.check import check_closed
from ciaosfs.offline.recover import RECOVERING_NAME, Plan, install, rebuilt
from tests.support.builders import Store, files_of, put, remove

FILES = {b"one": b"1" * 5000, b"three": b"3" * 300_000}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.make(tmp_path / "store")

    @trio_test
    async def fill() -> None:
        async with store.open() as filesystem:
            await put(filesystem, b"one", FILES[b"one"])
            await put(filesystem, b"two", b"2" * 5000)
            await filesystem.sync()
            store.copy(tmp_path / "older")
            await remove(filesystem, b"two")
            await put(filesystem, b"three", FILES[b"three"])

    fill()
    return store


async def recover(store: Store) -> tuple[Plan, Path | None]:
    async with Workers() as workers, rebuilt(store.config, workers) as plan:
        return plan, install(store.config)


def lost(store: Store, other: Path) -> None:
    store.lose_database()


def garbage(store: Store, other: Path) -> None:
    store.lose_database()
    store.database.write_bytes(b"garbage" * 10_000)


def flipped(store: Store, other: Path) -> None:
    content = bytearray(store.database.read_bytes())
    for at in range(4096, len(content), 4096):
        content[at : at + 64] = b"\xff" * 64
    store.database.write_bytes(content)


def older(store: Store, other: Path) -> None:
    store.replace_database(Store(other / "older"))


def another_stores(store: Store, other: Path) -> None:
    stranger = Store.make(other / "stranger")

    @trio_test
    async def fill() -> None:
        async with stranger.open() as filesystem:
            await put(filesystem, b"strange", b"s")

    fill()
    store.replace_database(stranger)


def untouched(store: Store, other: Path) -> None:
    """Nothing is wrong with the database, and it can be rebuilt all the same."""


HARMS: list[Callable[[Store, Path], None]] = [lost, garbage, flipped, older, another_stores, untouched]


@pytest.mark.parametrize("harm", HARMS)
def test_recover_whatever_the_database_holds(
    store: Store, tmp_path: Path, harm: Callable[[Store, Path], None]
) -> None:
    harm(store, tmp_path)
    before = {path.name: path.read_bytes() for path in store.database.parent.iterdir()}

    @trio_test
    async def recover_and_look() -> None:
        plan, kept = await recover(store)
        assert plan.problems == ()
        assert plan.state.sequence >= 2
        if harm is not flipped:
            assert (plan.database_state is not None) == (harm in (older, untouched))
        assert kept is not None and kept.parent == store.path
        names = {name for name in before if not name.endswith("-shm")}
        assert {name: (kept / name).read_bytes() for name in names} == {name: before[name] for name in names}
        async with Workers() as workers:
            findings = await check_closed(store.config, workers, data=True)
        assert (findings.problems, findings.notes) == ([], [])
        assert await files_of(store) == FILES

    recover_and_look()
    assert not (store.path / RECOVERING_NAME).exists()


def contents(store: Store) -> dict[Path, bytes]:
    """Every file, except SQLite's index of its write-ahead log, which is made anew whenever it is opened."""
    files = (path for path in store.path.rglob("*") if path.is_file() and path.suffix != ".sqlite-shm")
    return {path: path.read_bytes() for path in files}


@trio_test
async def test_nothing_is_changed_without_installing(store: Store) -> None:
    before = contents(store)
    async with Workers() as workers, rebuilt(store.config, workers) as plan:
        assert plan.database_state == plan.state
    assert contents(store) == before


@trio_test
async def test_a_second_recovery_keeps_the_database_of_the_first_apart(store: Store) -> None:
    kept = [(await recover(store))[1] for _ in range(2)]
    assert len(set(kept)) == 2


@trio_test
async def test_a_crash_between_the_renames_leaves_what_a_mount_rebuilds(store: Store) -> None:
    async with Workers() as workers, rebuilt(store.config, workers):
        store.database.parent.rename(store.path / "meta.replaced-then")
        left = store.copy(store.path.parent / "left")
    assert (left.path / RECOVERING_NAME).exists()
    assert await files_of(left) == FILES
    await recover(left)
    assert await files_of(left) == FILES


@trio_test
async def test_drives_that_are_away_are_waited_for_when_the_database_knows_more(
    store: Store, tmp_path: Path
) -> None:
    """The other half of the drives is as it was before the last commits."""
    for number in range(4):
        shutil.rmtree(store.drive(number))
        shutil.copytree(Store(tmp_path / "older").drive(number), store.drive(number))
    store.hide(4)
    store.hide(5)
    with pytest.raises(DriveGoneError, match="connect drive 4, 5 first"):
        await recover(store)
    store.bring_back(4)
    store.bring_back(5)
    _, kept = await recover(store)
    assert kept is not None


@trio_test
async def test_drives_without_commits_are_nothing_to_recover_from(tmp_path: Path) -> None:
    empty = Store.make(tmp_path / "empty")
    with pytest.raises(LogDamagedError, match="hold no commits"):
        await recover(empty)
    assert (empty.path / "meta").exists() and not (empty.path / RECOVERING_NAME).exists()


@trio_test
async def test_a_gap_in_the_log_changes_nothing(store: Store) -> None:
    for drive in store.config.drives:
        for volume in store.volumes(drive.number):
            content = volume.read_bytes()
            if b"CIAOSLOG" in content:
                volume.write_bytes(content.replace(b"CIAOSLOG", b"CIAOSGOL", 1))
    before = store.database.read_bytes()
    with pytest.raises(CiaosError, match="not all of them"):
        await recover(store)
    assert store.database.read_bytes() == before
