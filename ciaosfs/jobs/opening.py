"""Which jobs an open store has, and what keeps them going: the one place that wires this floor."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ciaosfs.base.config import StoreConfig
from ciaosfs.fs.drives import DriveAdministration
from ciaosfs.fs.parts import Parts
from ciaosfs.jobs import drain
from ciaosfs.jobs.runner import JobFactory, JobRunner, run_jobs


@dataclass(frozen=True, slots=True)
class OpenJobs:
    """The background work of one open store."""

    runner: JobRunner
    drives: DriveAdministration


@asynccontextmanager
async def open_jobs(config: StoreConfig, parts: Parts) -> AsyncIterator[OpenJobs]:
    """Run the jobs of a store; to be left before the store is closed."""
    drives = DriveAdministration(config, parts)
    kinds: dict[str, JobFactory] = {drain.KIND: drain.drain_factory(parts, drives)}
    async with run_jobs(parts.meta.jobs, parts.gate, kinds, config.job_share) as runner:
        await drain.resume_drains(runner, drives)
        yield OpenJobs(runner, drives)
