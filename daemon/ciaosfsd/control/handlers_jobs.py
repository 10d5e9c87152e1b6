"""What can be asked about background jobs: which there are, how far they are, and that they pause or go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ciaosfs.base.errors import UsageError
from ciaosfs.jobs.job import JobStatus
from ciaosfs.jobs.runner import JobRunner
from ciaosfsd.control.server import Handler


class JobHandlers:
    """The handlers of one mounted store."""

    def __init__(self, runner: JobRunner) -> None:
        self._runner = runner

    def by_operation(self) -> dict[str, Handler]:
        return {"job-list": self.list_jobs, "job-pause": self.pause, "job-resume": self.resume}

    async def list_jobs(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Every job that is remembered, oldest first; rates per second, durations in seconds."""
        return {"jobs": [job_fields(status) for status in self._runner.jobs()]}

    async def pause(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Stop job `id` until it is resumed."""
        job_id = take_id(arguments)
        self._runner.pause(job_id)
        return {"job": job_fields(self._runner.job(job_id))}

    async def resume(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Let job `id` go on."""
        job_id = take_id(arguments)
        self._runner.resume(job_id)
        return {"job": job_fields(self._runner.job(job_id))}


def take_id(arguments: Mapping[str, Any]) -> int:
    """The argument `id` of a request; UsageError when it is no number of a job."""
    value = arguments.get("id")
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
