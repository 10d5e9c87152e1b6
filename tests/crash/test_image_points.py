"""A kill or a power cut at every named step of images and collecting; what was synced is there, database or not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base import limits
from ciaosfs.base.crashpoints import POINTS, hooked
from ciaosfs.base.types import VolumeKind
from ciaosfs.checking.check import check_store
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.volume import volume
from tests.support.builders import Store, complaints, files_in, files_of, put, remove
from tests.support.power import Fate, PoweredDrives

State = dict[bytes, bytes]
LARGE = 300_000
"""More than a replicated stripe takes."""


@contextmanager
def small_volumes() -> Iterator[None]:
    """Data volumes that are full after a few stripes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(volume._BYTES_MAX, VolumeKind.DATA, 1 * limits.MIB)
        yield


@dataclass
class Left:
    """What a crash at `point` left, and the states it may show."""

    store: Store
    point: str
    allowed: list[State]


@dataclass
class Run:
    """The states of a run that are durable or may be: all from the last one that was answered on."""

    states: list[State] = field(default_factory=lambda: [{}])
    left: list[Left] = field(default_factory=list)


async def step(filesystem: FileSystem, run: Run, number: int) -> None:
    """Large files and small ones come and go: log and data volumes become free."""
    dice = random.Random(number)
    await put(filesystem, b"large%d" % number, dice.randbytes(LARGE))
    await put(filesystem, b"small%d" % number, dice.randbytes(3000))
    for name in (b"large%d" % (number - 1), b"small%d" % (number - 1)):
        if number:
            await remove(filesystem, name)
    run.states.append(await files_in(filesystem))
    await filesystem.sync()
    del run.states[:-1]


async def settle(filesystem: FileSystem) -> None:
    """Until what is dead has been given back and its rows are gone."""
    for _ in range(3):
        await filesystem.parts.committer.commit_anyway()
        await filesystem.parts.reclaimer.wait_discarded()


async def all_left(tmp_path: Path, crash: str, seed: int) -> Run:
    """Steps with images and rounds of collecting between, struck at each point that is reached."""
    store, power, run, dice = (
        Store.make(tmp_path / "store", 2, 1, 1),
        PoweredDrives(),
        Run(),
        random.Random(seed),
    )

    def cut(target: Path) -> Store:
        return power.cut(store, target, dice.choice(list(Fate)), dice)

    def strike(point: str) -> None:
        target = tmp_path / f"left{len(run.left)}"
        with power.turn:
            left = store.copy(target) if crash == "kill" else cut(target)
        run.left.append(Left(left, point, list(run.states)))

    for session in range(2):
        async with store.open(opener=power) as filesystem:
            for number in range(session * 4, session * 4 + 4 - session):
                await step(filesystem, run, number)
                await settle(filesystem)
                with hooked(strike):
                    await filesystem.parts.imager.write()
                    await filesystem.parts.collector.collect()
    return run


@pytest.mark.parametrize("crash", ["kill", "power cut"])
@trio_test
async def test_at_each_point_of_images_and_collecting(tmp_path: Path, crash: str) -> None:
    with small_volumes():
        run = await all_left(tmp_path, crash, seed=5)
        wanted = {point for point in POINTS if point.startswith(("image.", "collect."))}
        assert wanted <= {left.point for left in run.left}
        for number, left in enumerate(run.left):
            if number % 2:
                left.store.lose_database()
            found = await files_of(left.store)
            assert found in left.allowed, left.point
            assert complaints(left.store.database) == [], left.point
            left.store.lose_database()
            assert await files_of(left.store) == found, f"{left.point}, and then without a database"


@trio_test
async def test_volumes_are_deleted_and_the_log_is_bounded(tmp_path: Path) -> None:
    """Over many steps with images no more volumes are left than a few of each kind on each drive."""
    store = Store.make(tmp_path / "store", 2, 1, 1)
    run = Run()
    counts = []
    with small_volumes():
        for session in range(3):
            async with store.open() as filesystem:
                for number in range(10):
                    await step(filesystem, run, session * 10 + number)
                    await filesystem.parts.imager.write()
                    await settle(filesystem)
                    await filesystem.parts.collector.collect()
                    if number == 9:
                        assert await check_store(filesystem, data=True) == []
                    counts.append(sum(len(store.volumes(drive)) for drive in range(4)))
    assert max(counts[5:]) <= counts[4] + 12, counts
    assert complaints(store.database) == []
    expected = run.states[-1]
    store.lose_database()
    assert await files_of(store) == expected
