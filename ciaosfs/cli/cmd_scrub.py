"""`ciaosfs scrub`: when everything stored was last verified; and verify it now."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ciaosfs.base.errors import UsageError
from ciaosfs.cli import jobtable, output
from ciaosfs.cli.paths import LocalPath
from ciaosfs.client.locate import connect, locate_mounted
from ciaosfs.client.transport import Connection

WATCH_S = 0.5


@click.command("scrub")
@click.argument(
    "path", metavar="[STORE|MOUNTPOINT]", type=LocalPath(path_type=Path, readable=False), required=False
)
@click.option("--now", is_flag=True, help="Begin at once, with all the time there is.")
@click.option("--wait", is_flag=True, help="Return when it has ended and what it found is repaired.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON line.")
def command(path: Path | None, now: bool, wait: bool, as_json: bool) -> None:
    """Read and verify everything that is stored; what is found damaged is repaired.

    This happens by itself, once in the scrub_period_days of ciaosfs.toml. Without options, says when it was last
    done and how far it is.

    \b
    Example:
      ciaosfs scrub --now --wait /mnt/ciaos
    """
    target, _ = locate_mounted(path)
    with connect(target.store) as connection:
        result = connection.call("scrub", now=now)
        if wait:
            if result["job"] is not None:
                _follow(connection, result["job"]["id"], quiet=as_json)
            result = connection.call("scrub", timeout_s=None, settle=True)
    if as_json:
        output.print_json("scrub", {"store": str(target.store), **result})
        return
    for line in _lines(result):
        output.print_result(line)


def _follow(connection: Connection, number: int, *, quiet: bool) -> None:
    """Show how far the job is until it has ended."""
    screen = output.Screen(is_live=True)
    while True:
        jobs = connection.call("job-list")["jobs"]
        job = next((job for job in jobs if job["id"] == number), None)
        if job is None or job["state"] in ("done", "failed"):
            return
        if job["state"] == "paused":
            raise UsageError(f"The scrub is paused: let it go on with 'ciaosfs job resume {number}'.")
        if not quiet and screen.is_in_place:
            screen.show(jobtable.table([job]))
        time.sleep(WATCH_S)


def _lines(result: dict[str, Any]) -> list[str]:
    last, job = result["last"], result["job"]
    lines = []
    if job is not None:
        lines.append(
            f"Scrub {job['id']} is {job['state']}: {jobtable.progress(job)}, {jobtable.left(job)} left."
        )
    if last is None:
        lines.append("No scrub has ended yet.")
    else:
        ended = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(last["updated_ns"] / 1e9))
        lines.append(f"The last scrub ended at {ended}: {last['message']}")
    return lines
