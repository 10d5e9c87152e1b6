"""`ciaosfs mkfs`."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import click

from ciaosfs.base.config import ACCESS_MODES, parse_drive
from ciaosfs.cli import output
from ciaosfs.cli.paths import LocalPath
from ciaosfs.offline.mkfs import DATA_COUNT, PARITY_COUNT, make_store, plan_store, weakness_of


@click.command("mkfs")
@click.argument("store", type=LocalPath(path_type=Path))
@click.option(
    "--drive",
    "drives",
    multiple=True,
    metavar="DIR[,host=H][,disk=D]",
    help="A directory that becomes a drive, in earnest use each on a disk of its own. Once for each drive; "
    "without any, the drives are directories inside the store. Drives with the same host, or disk, are taken to "
    "fail at once; without a disk those on one file system are.",
)
@click.option("--data", type=int, metavar="K", help=f"Data shards of a stripe [default: {DATA_COUNT}].")
@click.option(
    "--parity",
    type=int,
    metavar="M",
    help=f"Parity shards of a stripe: so many drives may be lost [default: {PARITY_COUNT}].",
)
@click.option(
    "--access",
    type=click.Choice(ACCESS_MODES),
    default="posix",
    show_default=True,
    help="Whether permissions alone let a process use the mount, or it needs a token, too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON line.")
def command(
    store: Path,
    drives: tuple[str, ...],
    data: int | None,
    parity: int | None,
    access: str,
    as_json: bool,
) -> None:
    """Make a new store in the directory STORE.

    STORE and the drives must be empty or not exist. Nothing is changed when something is wrong.

    \b
    Example:
      ciaosfs mkfs ~/store
      ciaosfs mkfs /srv/store --drive /disk1/c --drive /disk2/c --drive /disk3/c --data 2 --parity 1
      ciaosfs mkfs /srv/store --drive /nas1/c,host=nas1 --drive /nas2/c,host=nas2 \\
              --drive /disk1/c,host=here --data 2 --parity 1
    """
    given = [parse_drive(drive) for drive in drives]
    paths, labels = [path for path, _ in given], [each for _, each in given]
    config = plan_store(store, paths, data, parity, labels, access)
    make_store(config)
    weakness = weakness_of(config)
    if as_json:
        output.print_json(
            "store",
            {
                "store": os.fspath(config.path),
                "id": str(uuid.UUID(bytes=config.store_id)),
                "data": config.data_count,
                "parity": config.parity_count,
                "drives": [os.fspath(drive.path) for drive in config.drives],
                "access": config.access,
                "weakness": weakness,
            },
        )
    else:
        output.print_result(
            f"Made store {config.path}: {config.data_count}+{config.parity_count} on {len(config.drives)} drives. "
            f"Mount it with 'ciaosfs mount {config.path}'."
        )
        if weakness is not None:
            output.print_result(weakness)
