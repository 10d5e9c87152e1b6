"""When the next scrub is due: a period after the last one began, the first soon after the store is opened."""

from __future__ import annotations

import logging

import trio

from ciaosfs.base import clock
from ciaosfs.base.errors import CiaosError
from ciaosfs.jobs.job import JobStatus
from ciaosfs.jobs.runner import JobRunner

log = logging.getLogger(__name__)

FIRST_S = 600.0
"""After an opening, before a scrub that is due begins: mounting has better things to do."""
LOOK_S = 60.0
DAY_NS = 86_400 * 1_000_000_000


class ScrubSchedule:
    """For the loop; `run` is its task. `period_days` 0: only when somebody asks."""

    def __init__(self, runner: JobRunner, period_days: float) -> None:
        self._runner = runner
        self._period_ns = round(period_days * DAY_NS)

    async def run(self) -> None:
        """Begin scrubs when they are due, for ever."""
        if not self._period_ns:
            return
        await trio.sleep(FIRST_S)
        while True:
            if self._runner.unfinished("scrub") is None and clock.now_ns() >= self.due_ns():
                try:
                    await self._runner.submit("scrub", {})
                except CiaosError as error:
                    log.warning("the scrub that is due waits: %s", error)
            await trio.sleep(LOOK_S)

    async def now(self, share: float) -> int:
        """Begin a scrub unless one is under way; its number."""
        under_way = self._runner.unfinished("scrub")
        if under_way is not None:
            return under_way.job_id
        return await self._runner.submit("scrub", {"share": share})

    def last(self) -> JobStatus | None:
        """The newest scrub that has ended well."""
        done = [job for job in self._runner.jobs() if job.kind == "scrub" and job.state == "done"]
        return done[-1] if done else None

    def due_ns(self) -> int:
        """When the next one should begin, nanoseconds since 1970; 0: at once."""
        last = self.last()
        return 0 if last is None else last.created_ns + self._period_ns
