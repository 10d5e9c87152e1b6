"""Empties a drive that is to be removed, and lets it go.

Every shard on it is written to another drive: copied when it can be read and is whole, else decoded from the others, so a
drive that is absent is emptied as well. What is left is asked of the metadata, so a run that was interrupted simply begins
again. New shards do not come while other drives are enough; those of stripes that have died leave by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from ciaosfs.base.errors import CiaosError, DamagedError, DriveGoneError, UsageError
from ciaosfs.base.types import StripeRecord
from ciaosfs.fs.drives import DriveAdministration
from ciaosfs.fs.parts import Parts
from ciaosfs.jobs.job import JobPostponedError, Progress
from ciaosfs.jobs.runner import JobRunner

KIND: Final = "drain"
BATCH = 4
"""Stripes moved at the same time: one is read while another is written."""
SETTLE_S = 1.0
"""Between two looks at shards that are about to go by themselves, with their stripes."""
SETTLES_MAX = 30


@dataclass(slots=True)
class _Pass:
    """What one pass over the drive came to."""

    moved: int = 0
    stuck: list[tuple[int, CiaosError]] = field(default_factory=list)
    """Stripes that could not be moved, and why: above all drives that are away."""


class Drain:
    """The job for one drive."""

    def __init__(self, number: int, parts: Parts, drives: DriveAdministration) -> None:
        self._number = number
        self._meta = parts.meta
        self._mender = parts.mender
        self._committer = parts.committer
        self._drives = drives

    async def run(self, progress: Progress) -> str:
        """See `job.Job`."""
        number = self._number
        if self._meta.volumes.drive(number) is None:
            return f"Drive {number} is no longer one of the store."
        # A crash may have come before the mark was durable; and volumes are noted with commits.
        await self._drives.begin_removal(number)
        await self._committer.sync()
        _, left = (await self._drives.shards_by_drive()).get(number, (0, 0))
        progress.note(done=progress.done, total=progress.done + left, unit="bytes", message="")
        settles = 0
        while self._meta.volumes.is_drive_used(number):
            result = await self._pass(progress)
            await self._committer.sync()
            if result.stuck:
                stripe_id, error = result.stuck[0]
                raise JobPostponedError(
                    f"{len(result.stuck)} stripes cannot be moved off drive {number} now; stripe {stripe_id}: {error}"
                )
            if not result.moved:
                settles += 1
                if settles > SETTLES_MAX:
                    raise JobPostponedError(f"Deleted stripes on drive {number} wait to be given back.")
                await trio.sleep(SETTLE_S)
        progress.note(message="Emptied; it is being let go.")
        await self._drives.let_go(number)
        return f"Drive {number} was emptied and is no longer one of the store."

    async def _pass(self, progress: Progress) -> _Pass:
        """Move what can be moved, volume by volume."""
        result = _Pass()
        volumes = set(self._meta.volumes.on_drive(self._number))
        for volume_id in sorted(volumes):
            after = 0
            while records := self._meta.stripes.in_volume(volume_id, after, BATCH):
                after = records[-1].stripe_id
                async with trio.open_nursery() as nursery:
                    for record in records:
                        nursery.start_soon(self._move, record, volumes, progress, result)
                await progress.rest()
        return result

    async def _move(self, record: StripeRecord, volumes: set[int], progress: Progress, result: _Pass) -> None:
        indexes = [place.shard_index for place in record.places if place.volume_id in volumes]
        try:
            count = await self._mender.mend(
                record.stripe_id, indexes, avoid=self._drives.draining(), points=KIND
            )
        except (DamagedError, DriveGoneError) as error:
            result.stuck.append((record.stripe_id, error))
            return
        result.moved += count
        progress.note(done=progress.done + count * record.shard_bytes)


def drain_factory(parts: Parts, drives: DriveAdministration) -> Callable[[Mapping[str, Any]], Drain]:
    """How the runner makes such a job. Its one argument is `drive`, the number."""

    def make(arguments: Mapping[str, Any]) -> Drain:
        number = arguments.get("drive")
        if not isinstance(number, int):
            raise UsageError("A drain needs the number of a drive.")
        return Drain(number, parts, drives)

    return make


async def submit_drain(runner: JobRunner, number: int) -> int:
    """The number of the unfinished job that empties this drive, begun now if there is none."""
    for status in runner.jobs():
        if status.kind == KIND and status.arguments.get("drive") == number and not status.is_finished:
            return status.job_id
    return await runner.submit(KIND, {"drive": number})


async def resume_drains(runner: JobRunner, drives: DriveAdministration) -> None:
    """A crash may have come between the mark on a drive and its job: every draining drive has one."""
    for number in drives.draining():
        await submit_drain(runner, number)
