"""The real job runner over rows in a dictionary, with one kind of job that counts: for the edge and the commands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import trio

from ciaosfs.base.config import StoreConfig
from ciaosfs.fs.drives import DriveAdministration
from ciaosfs.fs.gate import Gate
from ciaosfs.jobs.healing import Healer
from ciaosfs.jobs.job import Progress
from ciaosfs.jobs.opening import OpenJobs
from ciaosfs.jobs.runner import run_jobs
from ciaosfs.jobs.schedule import ScrubSchedule
from ciaosfs.meta.jobs import JobRow, Jobs
from tests.support.memory_drives import MemoryDrives


class MemoryTable:
    """What `ciaosfs.meta.jobs.Jobs` does, without a database."""

    def __init__(self) -> None:
        self.rows: dict[int, JobRow] = {}

    def put(self, row: JobRow) -> None:
        self.rows[row.job_id] = row

    def all(self) -> list[JobRow]:
        return [self.rows[job_id] for job_id in sorted(self.rows)]

    def delete(self, job_id: int) -> None:
        self.rows.pop(job_id, None)


class Counting:
    """Counts up to `to`, `every_s` seconds apart, and goes on where it was."""

    def __init__(self, to: int, every_s: float) -> None:
        self._to = to
        self._every_s = every_s

    async def run(self, progress: Progress) -> str:
        at = int(progress.cursor or 0)
        while at < self._to:
            await trio.sleep(self._every_s)
            at += 1
            progress.note(done=at, total=self._to, unit="sheep", cursor=str(at))
        return f"{self._to} counted."


def counting(arguments: Mapping[str, Any]) -> Counting:
    return Counting(arguments.get("to", 3), arguments.get("every_s", 0.01))


class Settled:
    """A healer with nothing to heal."""

    def lost_stripes(self) -> list[int]:
        return []

    async def settle(self) -> None:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_memory_jobs(config: StoreConfig, parts: object) -> AsyncIterator[OpenJobs]:
    """A job that is over soon, and one that is never."""
    kinds = {"count": counting, "drain": counting, "scrub": counting}
    async with run_jobs(cast(Jobs, MemoryTable()), Gate(), kinds, 1.0) as runner:
        await runner.submit("count", {})
        await runner.submit("count", {"to": 1_000_000, "every_s": 0.01})
        drives = cast(DriveAdministration, MemoryDrives())
        yield OpenJobs(runner, drives, cast(Healer, Settled()), ScrubSchedule(runner, 7.0))
