"""Sees to it that damage is repaired without anybody asking: looks what there is to do, and starts the jobs for it.

A repair job is started when a shard was met damaged, and when stripes miss shards and the drives are not what they
were when the last repair had done what it could. A drive that is away gets a job of the kind `verify`, which waits for
it, across restarts, and finds out what of it can still be believed.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

import trio

from ciaosfs.base.errors import CiaosError, UsageError
from ciaosfs.fs.parts import Parts
from ciaosfs.jobs.absences import Absences
from ciaosfs.jobs.job import JobState
from ciaosfs.jobs.presumption import drives_lacking_bytes
from ciaosfs.jobs.runner import JobRunner
from ciaosfs.jobs.suspects import Suspects

log = logging.getLogger(__name__)

LOOK_S = 1.0
RETRY_S = 5.0
RETRY_S_MAX = 3600.0
"""Stripes still miss shards after a repair although the drives are as they were: it is tried again, ever more rarely."""

_Drives = frozenset[tuple[int, str, bool]]


class Healer:
    """For the loop; `run` is its task."""

    def __init__(self, parts: Parts, runner: JobRunner, suspects: Suspects, absences: Absences) -> None:
        self._parts = parts
        self._runner = runner
        self._suspects = suspects
        self._absences = absences
        self._turn = trio.Lock()
        self._looked: tuple[_Drives, frozenset[int]] | None = None
        self._repaired_with: tuple[_Drives, frozenset[int]] | None = None
        self._has_repaired = False
        self._retry_at_s = 0.0
        self._retry_s = RETRY_S

    def lost_stripes(self) -> list[int]:
        """Stripes that were found to have too few good shards, in this mount; some may be dead by now."""
        return self._suspects.lost()

    async def run(self) -> None:
        """Look and ask, for ever."""
        await self._presume()
        while True:
            try:
                await self.look()
            except (CiaosError, OSError) as error:
                log.warning("healing waits: %s", error)
            await trio.sleep(LOOK_S)

    async def _presume(self) -> None:
        try:
            for number in await drives_lacking_bytes(self._parts):
                log.warning("drive %d lacks what was written to it: it is verified", number)
                await self._verify_on_return(number, is_there=True)
        except (CiaosError, OSError) as error:
            log.warning("what the drives hold was not looked at: %s", error)

    async def look(self) -> None:
        """Start what is needed now."""
        async with self._turn:
            await self._look()

    async def _look(self) -> None:
        drives = self._parts.chunks.drive_statuses()
        away, came = self._absences.look(drives)
        for number in away | came:
            await self._verify_on_return(number, is_there=number in came)
        self._end_verifying_others({drive.number for drive in drives})
        now = frozenset((d.number, str(d.state), d.is_draining) for d in drives), self._absences.given_up()
        if now != self._looked:
            self._looked = now
            self._retry_s = RETRY_S
            self._suspects.retry()
        if self._runner.unfinished("repair") is not None:
            self._has_repaired = True
            return
        if self._has_repaired:
            self._has_repaired = False
            if not self._lacks_shards():
                self._repaired_with = None
                self._retry_s = RETRY_S
        if self._is_needed():
            self._repaired_with = now
            self._retry_at_s = trio.current_time() + self._retry_s
            self._retry_s = min(2 * self._retry_s, RETRY_S_MAX)
            self._has_repaired = True
            await self._runner.submit("repair", {})

    def _is_needed(self) -> bool:
        if len(self._suspects):
            return True
        if self._repaired_with == self._looked and trio.current_time() < self._retry_at_s:
            return False
        return self._lacks_shards()

    def _lacks_shards(self) -> bool:
        return bool(self._absences.given_up() or self._parts.meta.stripes.with_missing(1))

    async def _verify_on_return(self, number: int, *, is_there: bool) -> None:
        for job in self._runner.jobs():
            if job.kind == "verify" and not job.is_finished and job.arguments.get("drive") == number:
                if is_there and job.state is JobState.WAITING:
                    self._runner.resume(job.job_id)
                return
        await self._runner.submit("verify", {"drive": number})

    def _end_verifying_others(self, numbers: Collection[int]) -> None:
        """A drive that was let go while it was away never comes back: what waits for it finds that out, and ends."""
        for job in self._runner.jobs():
            if (
                job.kind == "verify"
                and job.state is JobState.WAITING
                and job.arguments.get("drive") not in numbers
            ):
                self._runner.resume(job.job_id)

    async def settle(self) -> None:
        """Return when what is known to be damaged was repaired, as far as it can be, and that is durable."""
        while True:
            await self.look()
            repair = self._runner.unfinished("repair")
            if repair is None:
                break
            if repair.state is JobState.PAUSED:
                raise UsageError(f"Repair waits until job {repair.job_id} is resumed.")
            await self._runner.wait(repair.job_id)
        await self._parts.committer.sync()
