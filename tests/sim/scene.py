"""A store in a simulated world whose jobs are made to run, step by step, for tests that crash at named points."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

import trio

from ciaosfs.base.crashpoints import hooked
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.fs.opening import open_store
from ciaosfs.jobs.opening import OpenJobs, open_jobs
from ciaosfs.meta import integrity
from tests.sim import needles
from tests.sim.life import CAPACITY, SimWorkers
from tests.sim.telling import quiet
from tests.sim.world import World
from tests.support.builders import files_in, put, remove
from tests.support.inline_workers import run_the_same_way

DATA, PARITY, SPARE = 2, 1, 1
WAIT_S = 600
"""Virtual seconds after which a job that is not done never will be."""
PATIENCE_S = 1200

Driver = Callable[["Scene"], Awaitable[None]]


@dataclass
class Scene:
    """An open store with some files, all of them synced."""

    world: World
    fs: FileSystem
    jobs: OpenJobs
    expected: dict[bytes, bytes]

    async def jobs_done(self) -> None:
        """Every job has come to its end. AssertionError when one fails, or waits for ever."""
        with trio.move_on_after(WAIT_S) as patience:
            for job in self.jobs.runner.jobs():
                status = await self.jobs.runner.wait(job.job_id)
                assert status.state == "done", f"job {job.kind} ended as {status.state}: {status.message}"
        assert not patience.cancelled_caught, f"jobs do not end: {self.jobs.runner.jobs()}"


@asynccontextmanager
async def opened(world: World, expected: dict[bytes, bytes]) -> AsyncIterator[Scene]:
    config = replace(world.config, commit_interval_s=5.0, job_share=1.0)
    async with (
        SimWorkers(world.seed, world) as workers,
        open_store(config, workers, opener=world.opener()) as fs,
        open_jobs(config, fs.parts) as jobs,
    ):
        yield Scene(world, fs, jobs, expected)


async def prepare(world: World) -> dict[bytes, bytes]:
    """A store with large and small files, half of which were deleted again; what is in it.

    It was killed after that, when the drives had volumes and needles that no commit knows.
    """
    dice = Random(world.seed)
    async with opened(world, {}) as scene:
        for number in range(12):
            length = dice.choice([200, 9_000, 40_000, 300_000])
            await put(scene.fs, b"file%d" % number, dice.randbytes(length))
        await scene.fs.sync()
        for number in range(0, 12, 2):
            await remove(scene.fs, b"file%d" % number)
        await scene.fs.sync()
        expected = await files_in(scene.fs)
    with trio.CancelScope() as scope:
        world.on_crash = scope.cancel
        async with opened(world, expected) as scene:
            await put(scene.fs, b"lost", dice.randbytes(600_000))
            await trio.sleep(0.5)
            world.crash("kill")
    world.rise()
    return expected


def crash_at(point: str, driver: Driver, kind: str, place: Path, seed: int) -> None:
    """Run the driver, crash when it first reaches the point, and look at what is left. AssertionError."""
    world = World(place, seed, DATA, PARITY, SPARE, CAPACITY)
    with world.running(), quiet() as tracebacks:
        run_the_same_way(seed, partial(_crash_at, world, point, driver, kind))
        assert tracebacks.found == []


async def _crash_at(world: World, point: str, driver: Driver, kind: str) -> None:
    expected = await prepare(world)
    scope = trio.CancelScope()
    world.on_crash = scope.cancel

    def reached(name: str) -> None:
        if name == point:
            world.crash(kind)

    with hooked(reached), scope:
        async with opened(world, expected) as scene:
            with trio.move_on_after(PATIENCE_S):
                await driver(scene)
    assert world.is_over, f"{point} was not reached by what should make that job run"
    world.rise()
    world.on_crash = lambda: None
    async with opened(world, expected) as scene:
        assert await files_in(scene.fs) == expected
        await scene.jobs_done()
        await scene.fs.sync()
        await _check(scene)
    world.lose_database()
    last = max(world.config.drives, key=lambda drive: drive.number)
    world.content_of(last.uuid).is_away = True
    async with opened(world, expected) as scene:
        assert await files_in(scene.fs) == expected, "without the database and a drive"


async def _check(scene: Scene) -> None:
    """The tree is as it was, the metadata sound, and every stripe whole on every drive."""
    assert await files_in(scene.fs) == scene.expected
    with scene.fs._meta.reader() as reader:
        assert [*reader.quick_check(), *integrity.check(reader)] == []
    await needles.check_everything_is_there(scene.fs, scene.world, ())
    assert set(await scene.fs.stripes_by_missing()) <= {0}
