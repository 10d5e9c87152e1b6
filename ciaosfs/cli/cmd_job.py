"""`ciaosfs job list|show|pause|resume`: background work of a mounted store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from ciaosfs.base.errors import UsageError
from ciaosfs.cli import jobtable, output
from ciaosfs.cli.paths import LocalPath
from ciaosfs.client.locate import connect, locate_mounted
from ciaosfs.client.transport import Connection

WATCH_S = 1.0
FINISHED = ("done", "failed")

_path = click.argument(
    "path", metavar="[STORE|MOUNTPOINT]", type=LocalPath(path_type=Path, readable=False), required=False
)
_number = click.argument("number", metavar="JOB", type=click.IntRange(min=1))
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")


@click.group("job")
def command() -> None:
    """Look at background work (scrub, repair, drain) of a mounted store, pause it, let it go on.

    \b
    Example:
      ciaosfs job list --watch
      ciaosfs job show 7 --json
    """


@command.command("list")
@_path
@_json
@click.option("--all", "with_finished", is_flag=True, help="Show those that have ended, too.")
@click.option("--watch", is_flag=True, help="Go on until no job is unfinished.")
def list_jobs(path: Path | None, as_json: bool, with_finished: bool, watch: bool) -> None:
    """Show the jobs that are unfinished, with progress, rate and time left.

    \b
    Example:
      ciaosfs job list --watch
      ciaosfs job list --all --json
    """

    def wanted(job: Mapping[str, Any]) -> bool:
        return with_finished or job["state"] not in FINISHED

    _follow(path, wanted, jobtable.table, as_json=as_json, watch=watch)


@command.command("show")
@_number
@_path
@_json
@click.option("--watch", is_flag=True, help="Go on until the job has ended.")
def show(number: int, path: Path | None, as_json: bool, watch: bool) -> None:
    """Show one job.

    \b
    Example:
      ciaosfs job show 7 --watch
    """

    def wanted(job: Mapping[str, Any]) -> bool:
        return bool(job["id"] == number)

    def lines(jobs: list[Mapping[str, Any]]) -> list[str]:
        if not jobs:
            raise UsageError(f"There is no job {number}: 'ciaosfs job list --all' shows those there are.")
        return jobtable.details(jobs[0])

    jobs = _follow(path, wanted, lines, as_json=as_json, watch=watch)
    if jobs and jobs[0]["state"] == "failed":
        raise SystemExit(1)


@command.command("pause")
@_number
@_path
@_json
def pause(number: int, path: Path | None, as_json: bool) -> None:
    """Stop a job until it is resumed; a restart does not resume it.

    \b
    Example:
      ciaosfs job pause 7
    """
    _change("job-pause", number, path, as_json)


@command.command("resume")
@_number
@_path
@_json
def resume(number: int, path: Path | None, as_json: bool) -> None:
    """Let a paused job go on; one that waits before it tries again does so at once.

    \b
    Example:
      ciaosfs job resume 7
    """
    _change("job-resume", number, path, as_json)


def _change(operation: str, number: int, path: Path | None, as_json: bool) -> None:
    target, _ = locate_mounted(path)
    with connect(target.store) as connection:
        job = connection.call(operation, id=number)["job"]
    if as_json:
        output.print_json("job", job)
    else:
        output.print_result(f"Job {number} ({job['kind']}) is {job['state']}.")


def _follow(
    path: Path | None,
    wanted: Callable[[Mapping[str, Any]], bool],
    lines: Callable[[list[Mapping[str, Any]]], list[str]],
    *,
    as_json: bool,
    watch: bool,
) -> list[Mapping[str, Any]]:
    """Print the jobs that are wanted, once, or with `watch` until all of them have ended; returns them as printed last."""
    target, _ = locate_mounted(path)
    screen = output.Screen(is_live=watch and not as_json)
    with connect(target.store) as connection:
        while True:
            jobs = _jobs(connection, wanted)
            text = lines(jobs)
            if as_json:
                for job in jobs:
                    output.print_json("job", job)
            else:
                screen.show(text)
            if not watch or all(job["state"] in FINISHED for job in jobs):
                return jobs
            time.sleep(WATCH_S)


def _jobs(connection: Connection, wanted: Callable[[Mapping[str, Any]], bool]) -> list[Mapping[str, Any]]:
    every: list[Mapping[str, Any]] = connection.call("job-list")["jobs"]
    return [job for job in every if wanted(job)]
