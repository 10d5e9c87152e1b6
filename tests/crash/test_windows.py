"""A kill or a power cut before every single write, sync, punch and create of a run of commits.

What is found afterwards is a state that existed: never older than the last sync that was answered, never torn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import Store, complaints, files_in, files_of, put, remove
from tests.support.power import Fate, PoweredDrives, copy_database

State = dict[bytes, bytes]


@dataclass
class Run:
    """A run of commits: what the tree was at each, how many are answered, and their databases."""

    states: list[State] = field(default_factory=lambda: [{}])
    answered: int = 0
    databases: list[Store] = field(default_factory=list)


@dataclass(frozen=True)
class Moment:
    """What a crash left, and the states it may show: numbers `[first, last]` in the run."""

    store: Store
    what: str
    first: int
    last: int


async def work(filesystem: FileSystem, store: Store, run: Run, place: Path) -> None:
    """Commits of each kind: small and large data, overwriting, renaming over, deleting, and names only."""

    async def commit() -> None:
        run.states.append(await files_in(filesystem))
        await filesystem.sync()
        run.answered = len(run.states) - 1
        run.databases.append(copy_database(store, place / f"database{run.answered}"))

    await put(filesystem, b"small", b"one")
    await commit()
    await put(filesystem, b"large", random.Random(1).randbytes(400_000))
    await put(filesystem, b"small", b"two")
    await commit()
    await put(filesystem, b".new", random.Random(2).randbytes(300_000))
    await filesystem.rename(ROOT_INO, b".new", ROOT_INO, b"large", 0)
    await commit()
    await remove(filesystem, b"large")
    await put(filesystem, b"text", b"words " * 60_000)
    await commit()
    await filesystem.rename(ROOT_INO, b"text", ROOT_INO, b"moved", 0)
    await commit()


async def all_moments(
    tmp_path: Path, crash: str, seed: int, *, is_honest: bool = True
) -> tuple[Run, list[Moment]]:
    """Work, with a copy of what a crash leaves before each second operation on a drive; `seed` says which."""
    dice = random.Random(seed)
    store = Store.make(tmp_path / "store", data_count=2, parity_count=1, spare=1)
    power, run, moments = PoweredDrives(), Run(), list[Moment]()
    power.is_honest = is_honest
    count = 0

    def strike(what: str, where: str) -> None:
        nonlocal count
        count += 1
        if count % 2 != seed % 2:
            return
        target = tmp_path / f"left{count}"
        left = (
            store.copy(target) if crash == "kill" else power.cut(store, target, dice.choice(list(Fate)), dice)
        )
        moments.append(Moment(left, f"{what} {where}", run.answered, len(run.states) - 1))

    async with store.open(opener=power) as filesystem:
        run.databases.append(copy_database(store, tmp_path / "database0"))
        power.before = strike
        await work(filesystem, store, run, tmp_path)
        power.before = lambda what, where: None
    return run, moments


@pytest.mark.parametrize("crash", ["kill", "power cut"])
@pytest.mark.parametrize("seed", [1, 2])
@trio_test
async def test_before_each_operation_on_a_drive(tmp_path: Path, crash: str, seed: int) -> None:
    run, moments = await all_moments(tmp_path, crash, seed)
    assert len(moments) > 20
    dice = random.Random(seed)
    for moment in moments:
        if crash == "power cut":
            harm_database(moment, run, dice)
        await check_moment(moment, run)


async def check_moment(moment: Moment, run: Run) -> None:
    allowed = run.states[moment.first : moment.last + 1]
    found = await files_of(moment.store)
    assert found in allowed, f"before {moment.what}, not the state of commit {moment.first} or a later one"
    assert complaints(moment.store.database) == []
    assert await files_of(moment.store) == found, "the second mount shows another moment"


def harm_database(moment: Moment, run: Run, dice: random.Random) -> None:
    """The database as it may be after a power cut: as of now, as of any commit before, or not there."""
    luck = dice.random()
    if luck < 0.2:
        moment.store.lose_database()
    elif luck < 0.7:
        moment.store.replace_database(run.databases[dice.randrange(moment.first + 1)])


async def open_and_strike(store: Store, place: Path, dice: random.Random) -> list[Store]:
    """What power cuts leave before each operation of an opening and a closing."""
    power, left = PoweredDrives(), list[Store]()

    def strike(what: str, where: str) -> None:
        left.append(power.cut(store, place / f"{len(left)}", Fate.SECTORS, dice))

    power.before = strike
    async with store.open(opener=power) as filesystem:
        await put(filesystem, b"unsynced", b"never there")
    return left


@trio_test
async def test_killed_again_and_again_while_it_recovers(tmp_path: Path) -> None:
    """The opening after a crash is struck itself, before each thing it does to a drive."""
    store = Store.make(tmp_path / "store", data_count=2, parity_count=1, spare=1)
    async with store.open() as filesystem:
        for number in range(4):
            await put(filesystem, b"%d" % number, random.Random(number).randbytes(150_000 * number + 10))
            await filesystem.sync()
        expected = await files_in(filesystem)
        killed = store.copy(tmp_path / "killed")
    killed.lose_database()
    for generation in range(4):
        killed.reboot()
        dice = random.Random(generation)
        left = await open_and_strike(killed, tmp_path / f"left{generation}", dice)
        for number, store in enumerate(left):
            if number % 3 == generation % 3:
                found = await files_of(store)
                found.pop(b"unsynced", None)
                assert found == expected
        killed = left[dice.randrange(len(left))]
