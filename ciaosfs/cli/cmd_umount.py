"""`ciaosfs umount`: unmount, then wait until the daemon has everything on the drives."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click

from ciaosfs.base.errors import DaemonError, MountError
from ciaosfs.cli import output
from ciaosfs.client import mounts, storelock
from ciaosfs.client.locate import connect, locate_mounted

WAIT_S = 600.0
"""For what is in memory (64 MiB at most) to reach the drives, however slow they are."""


@click.command("umount")
@click.argument("mountpoint", type=click.Path(path_type=Path, readable=False), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON line.")
def command(mountpoint: Path | None, as_json: bool) -> None:
    """Unmount the store at MOUNTPOINT (or given by its directory, or the only one that is mounted).

    Returns when everything that was written is on the drives, or says what kept it from being so.

    \b
    Example:
      ciaosfs umount /mnt/ciaos
    """
    target, mount = locate_mounted(mountpoint)
    if os.geteuid() not in (0, mount.user_id):
        raise MountError(f"{mount.mountpoint} was mounted by another user: only they and root unmount it.")
    holder, _ = storelock.read_lock(target.store)
    try:
        mounts.unmount(mount.mountpoint)
    except MountError as error:
        if error.errno != errno.EBUSY or holder is None:
            raise
        _let_go(target.store)
        mounts.unmount(mount.mountpoint)
    if holder is None:
        output.talk(f"ciaosfs: the daemon of {target.store} had died; the next mount shows its last commit.")
    else:
        _await_daemon(target.store)
    if as_json:
        output.print_json("umount", {"store": str(target.store), "mountpoint": str(mount.mountpoint)})


def _let_go(store: Path) -> None:
    """What clients of the control socket have open is no reason to stay."""
    with connect(store) as connection:
        connection.call("object-let-go")


def _await_daemon(store: Path) -> None:
    if not storelock.wait_released(store, WAIT_S):
        raise DaemonError(
            f"The daemon of {store} has not ended after {WAIT_S:g} s: see ciaosfsd.log in the store."
        )
    holder, ending = storelock.read_lock(store)
    if holder is not None:
        return  # somebody mounted it again already, which needs the former daemon gone in good order
    if ending is None:
        raise DaemonError(
            f"The daemon of {store} died before everything was on the drives: "
            "the next mount shows the last commit; see ciaosfsd.log in the store."
        )
    if ending.exit_code != 0:
        raise DaemonError(ending.message)
