"""`ciaosfs drive list|add|remove|replace`: the drives of a mounted store, under load."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ciaosfs.base.config import parse_drive, parse_labels
from ciaosfs.base.errors import UsageError
from ciaosfs.base.units import format_bytes
from ciaosfs.cli import drivetable, output
from ciaosfs.cli.paths import LocalPath
from ciaosfs.cli.waiting import wait_for_job
from ciaosfs.client.locate import Target, connect, locate_mounted
from ciaosfs.client.transport import Connection

CHANGE_TIMEOUT_S = None
"""A slow disk may take long to make a directory durable; the daemon answers in any case."""

_path = click.argument(
    "path", metavar="[STORE|MOUNTPOINT]", type=LocalPath(path_type=Path, readable=False), required=False
)
_number = click.argument("number", metavar="DRIVE", type=click.IntRange(min=0))
_directory = click.argument("directory", metavar="DIR[,host=H][,disk=D]")
_label = click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="host=H|disk=D",
    help="What the drive shares its fate with: drives with the same host, or disk, are taken to fail at once. "
    "Without a disk, those on one file system are.",
)
_wait = click.option("--wait", is_flag=True, help="Return when the drive is empty and no longer in use.")
_yes = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON lines.")


@click.group("drive")
def command() -> None:
    """Look at the drives of a mounted store, add some, remove or replace them, while it is used.

    \b
    Example:
      ciaosfs drive list --json
      ciaosfs drive add /mnt/disk7/ciaos --label disk=disk7
      ciaosfs drive replace 3 /mnt/disk8/ciaos --wait
    """


@command.command("list")
@_path
@_json
def list_drives(path: Path | None, as_json: bool) -> None:
    """Show the drives: how they are, what they hold, what is being done to them.

    \b
    Example:
      ciaosfs drive list /mnt/ciaos
    """
    target, _ = locate_mounted(path)
    with connect(target.store) as connection:
        answer = connection.call("drive-list", timeout_s=CHANGE_TIMEOUT_S)
    if as_json:
        for drive in answer["drives"]:
            output.print_json("drive", drive)
        return
    for line in drivetable.table(answer["drives"]):
        output.print_result(line)
    if answer["weakness"]:
        output.print_result(answer["weakness"])


@command.command("add")
@_directory
@_path
@_label
@_json
def add(directory: str, path: Path | None, labels: tuple[str, ...], as_json: bool) -> None:
    """Make the empty directory DIR a drive of the store: it grows at once.

    \b
    Example:
      ciaosfs drive add /mnt/disk7/ciaos --label disk=disk7 /mnt/ciaos
    """
    target, place = _locate(path, directory, labels)
    with connect(target.store) as connection:
        answer = connection.call("drive-add", timeout_s=CHANGE_TIMEOUT_S, **place)
    if as_json:
        output.print_json("drive", answer)
    else:
        output.print_result(f"Drive {answer['number']} at {answer['path']} is in use.")


@command.command("remove")
@_number
@_path
@_wait
@_yes
@_json
def remove(number: int, path: Path | None, wait: bool, yes: bool, as_json: bool) -> None:
    """Move what is on drive number DRIVE to the others, then let go of it.

    It goes on in the background, through restarts, until nothing needs the drive any more; then what lies on it is
    deleted. An absent drive's part is computed from the others.

    \b
    Example:
      ciaosfs drive remove 3 --wait
    """
    target, _ = locate_mounted(path)
    with connect(target.store) as connection:
        _confirm(connection, number, yes)
        answer = connection.call("drive-remove", timeout_s=CHANGE_TIMEOUT_S, number=number)
        _finish(connection, answer, number, wait=wait, as_json=as_json)


@command.command("replace")
@_number
@_directory
@_path
@_label
@_wait
@_yes
@_json
def replace(
    number: int,
    directory: str,
    path: Path | None,
    labels: tuple[str, ...],
    wait: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Add the empty directory DIR as a drive, move what is on drive number DRIVE to where there is room, let go of it.

    DRIVE may be there, absent, or an emptied directory; DIR may be where an absent DRIVE was.

    \b
    Example:
      ciaosfs drive replace 3 /mnt/disk8/ciaos --wait
    """
    target, place = _locate(path, directory, labels)
    with connect(target.store) as connection:
        _confirm(connection, number, yes)
        answer = connection.call("drive-replace", timeout_s=CHANGE_TIMEOUT_S, number=number, **place)
        if not as_json:
            output.print_result(f"Drive {answer['number']} at {answer['path']} is in use.")
        _finish(connection, answer, number, wait=wait, as_json=as_json)


def _locate(path: Path | None, directory: str, labels: tuple[str, ...]) -> tuple[Target, dict[str, Any]]:
    """The store that is meant, and the place of the new drive as the daemon is told it."""
    target, mount = locate_mounted(path)
    place, given = parse_drive(directory)
    words = [*(f"{name}={value}" for name, value in given.fields().items()), *labels]
    parse_labels(words)
    if Path(os.path.realpath(place)).is_relative_to(mount.mountpoint):
        raise UsageError(f"{place} lies in the mount of this store: give a directory on a disk.")
    return target, {"path": os.fspath(place.absolute()), "labels": words}


def _confirm(connection: Connection, number: int, yes: bool) -> None:
    """Say what will be done, and ask on a terminal."""
    if yes or not sys.stdin.isatty():
        return
    drives = connection.call("drive-list", timeout_s=CHANGE_TIMEOUT_S)["drives"]
    drive = next((drive for drive in drives if drive["number"] == number), None)
    if drive is None:
        raise UsageError(f"There is no drive {number}: 'ciaosfs drive list' shows those there are.")
    output.talk(
        f"Drive {number} at {drive['path']} is {drive['state']} and holds {format_bytes(drive['shard_bytes'])}. "
        "That is moved to other drives; then what lies on it is deleted and it is no longer part of the store."
    )
    click.confirm("Go on?", abort=True, err=True)


def _finish(
    connection: Connection, answer: Mapping[str, Any], number: int, *, wait: bool, as_json: bool
) -> None:
    job = answer["job"]
    if wait:
        job = wait_for_job(connection, job["id"], f"Emptying drive {number}")
    if as_json:
        output.print_json("drive", {**answer, "job": job})
    elif wait:
        output.print_result(str(job["message"]))
    else:
        output.print_result(
            f"Drive {number} is being emptied by job {job['id']}: 'ciaosfs job show {job['id']} --watch'."
        )
