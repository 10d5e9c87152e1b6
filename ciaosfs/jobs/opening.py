"""Which jobs an open store has, and what keeps them going: the one place that wires this floor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from ciaosfs.base.config import StoreConfig
from ciaosfs.base.errors import UsageError
from ciaosfs.fs.drives import DriveAdministration
from ciaosfs.fs.parts import Parts
from ciaosfs.jobs import drain
from ciaosfs.jobs.absences import Absences
from ciaosfs.jobs.healing import Healer
from ciaosfs.jobs.job import Job
from ciaosfs.jobs.repair import RepairJob
from ciaosfs.jobs.runner import JobFactory, JobRunner, run_jobs
from ciaosfs.jobs.schedule import ScrubSchedule
from ciaosfs.jobs.scrub import ScrubJob
from ciaosfs.jobs.suspects import Suspects


@dataclass(frozen=True, slots=True)
class OpenJobs:
    """The background work of one open store."""

    runner: JobRunner
    drives: DriveAdministration
    healer: Healer
    scrubs: ScrubSchedule


@asynccontextmanager
async def open_jobs(config: StoreConfig, parts: Parts) -> AsyncIterator[OpenJobs]:
    """Run the jobs of a store; to be left before the store is closed."""
    drives = DriveAdministration(config, parts)
    suspects = Suspects()
    absences = Absences(config.repair_after_s)

    def repair(arguments: Mapping[str, Any]) -> Job:
        return RepairJob(parts, suspects, absences.given_up)

    def scrub(arguments: Mapping[str, Any]) -> Job:
        share = arguments.get("share")
        if share is not None and not (isinstance(share, int | float) and 0 < share <= 1):
            raise UsageError(f"{share!r} is no share of the time: give more than 0 and at most 1.")
        return ScrubJob(parts, suspects, share=share)

    def verify(arguments: Mapping[str, Any]) -> Job:
        drive = arguments.get("drive")
        if not isinstance(drive, int):
            raise UsageError(f"{drive!r} is no number of a drive.")
        return ScrubJob(parts, suspects, drive=drive)

    kinds: dict[str, JobFactory] = {
        "repair": repair,
        "scrub": scrub,
        "verify": verify,
        drain.KIND: drain.drain_factory(parts, drives),
    }
    async with run_jobs(parts.meta.jobs, parts.gate, kinds, config.job_share) as runner:
        healer = Healer(parts, runner, suspects, absences)
        schedule = ScrubSchedule(runner, config.scrub_period_days)
        parts.chunks.on_damage = suspects.note
        await drain.resume_drains(runner, drives)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(healer.run)
            nursery.start_soon(schedule.run)
            try:
                yield OpenJobs(runner, drives, healer, schedule)
            finally:
                nursery.cancel_scope.cancel()
