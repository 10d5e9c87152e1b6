"""What heals the simulated store: its jobs, brought to their end, and the proof that nothing is left to heal."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from ciaosfs.checking.check import check_open
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.jobs.drain import submit_drain
from ciaosfs.jobs.job import JobState
from ciaosfs.jobs.opening import OpenJobs
from ciaosfs.volume.driveset import DriveState
from tests.sim import needles
from tests.sim.world import World

WAIT_S = 1800.0
"""Virtual seconds after which a job that is not done never will be."""


async def wait_online(fs: FileSystem) -> None:
    """Nothing is wrong with any drive any more: wait until the store has noticed."""
    with trio.move_on_after(WAIT_S):
        while any(status.state is not DriveState.ONLINE for status in fs._chunks.drive_statuses()):  # noqa: ASYNC110 - nobody tells us
            await trio.sleep(1)
        return
    raise AssertionError(f"still not well: {fs._chunks.drive_statuses()}")


@dataclass(frozen=True)
class Care:
    """The jobs of one open store."""

    fs: FileSystem
    world: World
    jobs: OpenJobs

    async def finish(self, *, is_tight: bool) -> None:
        """Every job comes to its end, paused or not; on drives that are nearly full some may not."""
        runner = self.jobs.runner
        for job_id in [status.job_id for status in runner.jobs()]:
            if not any(status.job_id == job_id and not status.is_finished for status in runner.jobs()):
                continue
            runner.resume(job_id)
            with trio.move_on_after(WAIT_S / 60 if is_tight else WAIT_S) as patience:
                await runner.wait(job_id)
            assert is_tight or not patience.cancelled_caught, f"a job does not end: {runner.job(job_id)}"

    async def heal(self) -> None:
        """Scrub, repair, and write an image; then everything must be whole, on every drive."""
        await wait_online(self.fs)
        await self.finish(is_tight=False)
        await self.fs.sync()  # a scrub looks at the last commit
        scrub = await self.jobs.runner.wait(await self.jobs.scrubs.now(1.0))
        assert scrub.state is JobState.DONE, scrub.message
        await self.jobs.healer.settle()
        await self.fs.parts.imager.write()
        await self.fs.sync()
        await self._check_whole()

    async def _check_whole(self) -> None:
        await trio.lowlevel.checkpoint()
        stripes = self.fs._meta.stripes
        degraded = [
            number
            for number in stripes.ids_after(0)
            if (stripe := stripes.load(number)) and stripe.missing_count
        ]
        assert not any(map(self.fs.parts.mender.is_live, degraded)), "stripes still miss shards"
        await needles.check_everything_is_there(self.fs, self.world, ())
        findings = await check_open(self.fs, data=True)
        wrong = [problem for problem in findings.problems if not needles.is_of_dead(self.fs, problem)]
        assert wrong == [], f"not healed: {wrong[:3]}"

    async def empty(self, number: int, *, is_replaced: bool) -> None:
        """A drive begins to be emptied, for a new one or for the others."""
        drives = self.jobs.drives
        if is_replaced:
            await drives.replace(number, self.world.path / "drives" / f"n{len(self.world.uuids)}")
        else:
            await drives.begin_removal(number)
        await submit_drain(self.jobs.runner, number)

    @property
    def is_emptying(self) -> bool:
        return bool(self.jobs.drives.draining()) or self.jobs.runner.unfinished("drain") is not None
