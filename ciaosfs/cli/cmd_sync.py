"""`ciaosfs sync`."""

from __future__ import annotations

from pathlib import Path

import click

from ciaosfs.cli import output
from ciaosfs.cli.paths import LocalPath
from ciaosfs.client.locate import connect, locate_mounted


@click.command("sync")
@click.argument("mountpoint", type=LocalPath(path_type=Path, readable=False), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON line.")
def command(mountpoint: Path | None, as_json: bool) -> None:
    """Return when everything written so far below MOUNTPOINT, by whomever, is on the drives.

    MOUNTPOINT may be any path in the mount, the store's directory, or left out when one store is mounted.

    \b
    Example:
      ciaosfs sync /mnt/ciaos
    """
    target, _ = locate_mounted(mountpoint)
    with connect(target.store) as connection:
        result = connection.call("sync", timeout_s=None)
    if as_json:
        output.print_json("sync", {"store": str(target.store), **result})
