"""Waiting for a background job of the daemon, with its progress on a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ciaosfs.base.errors import CiaosError
from ciaosfs.cli import output
from ciaosfs.cli.progress import ProgressLine
from ciaosfs.client.transport import Connection

LOOK_S = 0.5


def wait_for_job(connection: Connection, job_id: int, stage: str) -> Mapping[str, Any]:
    """Return the job when it is done. `stage` says what it does. Raises CiaosError when it failed.

    What it waits for is said once, also where there is no terminal. Interrupted: the job goes on, and that is said.
    """
    told = ""
    try:
        with ProgressLine() as line:
            while True:
                job = _job(connection, job_id)
                if job["state"] in ("done", "failed"):
                    break
                if job["state"] != "running" and job["message"] not in ("", told):
                    told = str(job["message"])
                    line.clear()
                    output.talk(f"Job {job_id} is {job['state']}: {told}")
                line.show(stage, job["done"], job["total"], job["unit"])
                time.sleep(LOOK_S)
    except KeyboardInterrupt:
        output.talk(f"Job {job_id} goes on: 'ciaosfs job show {job_id} --watch' looks at it.")
        raise
    if job["state"] == "failed":
        raise CiaosError(f"Job {job_id} failed: {job['message']}")
    return job


def _job(connection: Connection, job_id: int) -> Mapping[str, Any]:
    jobs: list[Mapping[str, Any]] = connection.call("job-list")["jobs"]
    for job in jobs:
        if job["id"] == job_id:
            return job
    raise CiaosError(f"The daemon does not know job {job_id} any more.")
