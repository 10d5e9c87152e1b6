"""`ciaosfs status`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ciaosfs.base.config import load_config
from ciaosfs.cli import output
from ciaosfs.client import storelock
from ciaosfs.client.locate import connect, locate


@click.command("status")
@click.argument(
    "path", metavar="[STORE|MOUNTPOINT]", type=click.Path(path_type=Path, readable=False), required=False
)
@click.option("--json", "as_json", is_flag=True, help="Print the status as a JSON line.")
def command(path: Path | None, as_json: bool) -> None:
    """Show the state of a store: its mount, space, stripes, drives and last commit.

    STORE is its directory, MOUNTPOINT any path in its mount; neither is needed when one store is mounted.

    \b
    Example:
      ciaosfs status /mnt/ciaos
    """
    target = locate(path)
    fields = _of_unmounted(target.store) if target.mount is None else _of_mounted(target.store)
    if as_json:
        output.print_json("status", fields)
    else:
        output.print_status(fields)


def _of_mounted(store: Path) -> dict[str, Any]:
    with connect(store) as connection:
        return {"mounted": True, **connection.call("status")}


def _of_unmounted(store: Path) -> dict[str, Any]:
    config = load_config(store)
    holder, ending = storelock.read_lock(store)
    return {
        "mounted": False,
        "store": str(config.path),
        "data": config.data_count,
        "parity": config.parity_count,
        "holder_pid": holder.pid if holder is not None else None,
        "last_ending": asdict(ending) if ending is not None else None,
        "drives": [
            {
                "number": drive.number,
                "path": str(drive.path),
                "state": "present" if (drive.path / "drive.json").exists() else "absent",
            }
            for drive in config.drives
        ],
    }
