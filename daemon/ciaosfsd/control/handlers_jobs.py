"""What can be asked about background jobs: which there are, how far they are, and that they pause or go on."""

from __future__ import annotations

from typing import Any

from ciaosfs.base.errors import UsageError
from ciaosfs.jobs.job import JobStatus
from ciaosfs.jobs.opening import OpenJobs
from ciaosfsd.control.call import Call, Operation
from ciaosfsd.control.needs import ADMIN


class JobHandlers:
    """The handlers of one mounted store."""

    def __init__(self, jobs: OpenJobs) -> None:
        self._runner = jobs.runner
        self._healer = jobs.healer
        self._scrubs = jobs.scrubs

    def operations(self) -> tuple[Operation, ...]:
        return (
            Operation("job-list", ADMIN, self.list_jobs),
            Operation("job-pause", ADMIN, self.pause),
            Operation("job-resume", ADMIN, self.resume),
            Operation("scrub", ADMIN, self.scrub),
        )

    async def list_jobs(self, call: Call) -> dict[str, Any]:
        """Every job that is remembered, oldest first; rates per second, durations in seconds."""
        return {"jobs": [job_fields(status) for status in self._runner.jobs()]}

    async def pause(self, call: Call) -> dict[str, Any]:
        """Stop job `id` until it is resumed."""
        job_id = take_id(call)
        self._runner.pause(job_id)
        return {"job": job_fields(self._runner.job(job_id))}

    async def resume(self, call: Call) -> dict[str, Any]:
        """Let job `id` go on."""
        job_id = take_id(call)
        self._runner.resume(job_id)
        return {"job": job_fields(self._runner.job(job_id))}

    async def scrub(self, call: Call) -> dict[str, Any]:
        """With `now`, begin a scrub that takes all the time there is; with `settle`, answer when what is known to be
        damaged was repaired, as far as it can be. Tells of the last scrub, the one under way and the next."""
        if call.arguments.get("now") is True:
            await self._scrubs.now(share=1.0)
        if call.arguments.get("settle") is True:
            await self._healer.settle()
        last, under_way = self._scrubs.last(), self._runner.unfinished("scrub")
        return {
            "last": None if last is None else job_fields(last),
            "job": None if under_way is None else job_fields(under_way),
            "due_ns": self._scrubs.due_ns(),
        }


def take_id(call: Call) -> int:
    """The argument `id` of a request; UsageError when it is no number of a job."""
    value = call.arguments.get("id")
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"The number of a job is missing, or {value!r} is none.")
    return value


def job_fields(status: JobStatus) -> dict[str, Any]:
    """One job as the control socket shows it."""
    return {
        "id": status.job_id,
        "kind": status.kind,
        "arguments": dict(status.arguments),
        "state": str(status.state),
        "done": status.done,
        "total": status.total,
        "unit": status.unit,
        "created_ns": status.created_ns,
        "updated_ns": status.updated_ns,
        "message": status.message,
        "rate": status.rate,
        "eta_s": status.eta_s,
    }
