"""`ciaosfs status`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from ciaosfs.base.config import DriveConfig, load_config
from ciaosfs.base.errors import DamagedError
from ciaosfs.cli import output
from ciaosfs.cli.paths import LocalPath
from ciaosfs.cli.safety import FINISHED, lost_stripes, spare_drives
from ciaosfs.client import storelock
from ciaosfs.client.locate import connect, locate, locate_mounted
from ciaosfs.client.mounts import Mount
from ciaosfs.doctor.stores import last_commit_ns
from ciaosfs.drive.identity import IDENTITY_NAME
from ciaosfs.drive.making import space_at

LISTING_S = 600.0
"""For a look at every shard and every name of a large store, before the first file is found."""


@click.command("status")
@click.argument(
    "path", metavar="[STORE|MOUNTPOINT]", type=LocalPath(path_type=Path, readable=False), required=False
)
@click.option("--damaged", is_flag=True, help="List the files that cannot be read any more, instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def command(path: Path | None, damaged: bool, as_json: bool) -> int:
    """Show the state of a store: its mount, how safe its data is, space, stripes, drives and last commit.

    STORE is its directory, MOUNTPOINT any path in its mount; neither is needed when one store is mounted.

    With --damaged, the files of a mounted store with bytes in stripes that have lost more shards than parity replaces;
    exit status 7 when there is one.

    \b
    Example:
      ciaosfs status /mnt/ciaos
      ciaosfs status --damaged
    """
    if damaged:
        return _damaged(path, as_json)
    target = locate(path)
    if target.mount is None or target.is_orphaned:
        fields = _of_unmounted(target.store, target.mount)
    else:
        fields = _of_mounted(target.store)
    if as_json:
        output.print_json("status", fields)
    else:
        output.print_status(fields)
    return 0


def _damaged(path: Path | None, as_json: bool) -> int:
    target, mount = locate_mounted(path)
    with connect(target.store) as connection:
        for part in connection.stream("damaged", timeout_s=LISTING_S):
            for file in part["files"]:
                if as_json:
                    output.print_json("damaged", file)
                else:
                    output.print_damaged(os.fspath(mount.mountpoint), file)
        files, absent = connection.reply["files"], connection.reply["absent_drives"]
    if files and absent:
        numbers = ", ".join(map(str, absent))
        output.talk(f"ciaosfs: what is listed may come back with the drives that are away ({numbers}).")
    return DamagedError.exit_code if files else 0


def _of_mounted(store: Path) -> dict[str, Any]:
    with connect(store) as connection:
        hello = connection.call("hello")
        fields = connection.call("status")
        jobs = [job for job in connection.call("job-list")["jobs"] if job["state"] not in FINISHED]
    by_spare = fields["stripes_by_spare"]
    return {
        "mounted": True,
        "store_id": hello["store"],
        "version": hello["version"],
        "access": hello["access"],
        **fields,
        "drives_that_may_fail": spare_drives(fields["parity"], by_spare),
        "stripes_lost": lost_stripes(by_spare),
        "jobs": jobs,
    }


def _of_unmounted(store: Path, dead: Mount | None) -> dict[str, Any]:
    config = load_config(store)
    holder, ending = storelock.read_lock(store)
    return {
        "mounted": False,
        "store_id": str(UUID(bytes=config.store_id)),
        "store": str(config.path),
        "data": config.data_count,
        "parity": config.parity_count,
        "dead_mount": None if dead is None else os.fspath(dead.mountpoint),
        "holder_pid": holder.pid if holder is not None else None,
        "last_ending": asdict(ending) if ending is not None else None,
        "last_commit_ns": last_commit_ns(config.path),
        "drives": [_drive(drive) for drive in config.drives],
    }


def _drive(drive: DriveConfig) -> dict[str, Any]:
    fields = {"number": drive.number, "path": str(drive.path), "labels": drive.labels.fields()}
    if not (drive.path / IDENTITY_NAME).exists():
        return {**fields, "state": "absent"}
    space = space_at(drive.path)
    return {**fields, "state": "present", "free": space.free_bytes, "total": space.total_bytes}
