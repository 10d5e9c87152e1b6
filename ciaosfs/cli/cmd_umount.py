"""`ciaosfs umount`: unmount, then wait until the daemon has everything on the drives."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click

from ciaosfs.base.errors import DaemonError, MountError
from ciaosfs.base.log import LOG_NAME
from ciaosfs.cli import output
from ciaosfs.cli.paths import LocalPath
from ciaosfs.client import mounts, storelock
from ciaosfs.client.locate import connect, locate_mounted
from ciaosfs.client.mounts import Mount
from ciaosfs.client.storelock import Holder

WAIT_S = 600.0
"""For what is in memory (64 MiB at most) to reach the drives, however slow they are."""


@click.command("umount")
@click.argument("mountpoint", type=LocalPath(path_type=Path, readable=False), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON line.")
def command(mountpoint: Path | None, as_json: bool) -> None:
    """Unmount the store at MOUNTPOINT (or given by its directory, or the only one that is mounted).

    Returns when everything that was written is on the drives, or says what kept it from being so. What a daemon that has
    died left mounted is taken away, whether or not the store is mounted elsewhere by now.

    \b
    Example:
      ciaosfs umount /mnt/ciaos
    """
    target, mount = locate_mounted(mountpoint)
    if os.geteuid() not in (0, mount.user_id):
        raise MountError(f"{mount.mountpoint} was mounted by another user: only they and root unmount it.")
    holder = _holder_at(target.store, mount)
    try:
        mounts.unmount(mount.mountpoint)
    except MountError as error:
        if error.errno != errno.EBUSY or holder is None:
            raise
        _let_go(target.store)
        mounts.unmount(mount.mountpoint)
    if holder is not None:
        _await_daemon(holder, target.store, mount.mountpoint)
    elif (target.store / storelock.LOCK_NAME).exists():
        _say_what_it_was(target.store, mount)
    else:
        raise DaemonError(
            f"{mount.mountpoint} is unmounted, but how its daemon ended cannot be learnt, for {target.store} was moved "
            f"or removed meanwhile: the last changes may be lost; see {LOG_NAME} in that directory, where it is now."
        )
    if as_json:
        output.print_json("umount", {"store": str(target.store), "mountpoint": str(mount.mountpoint)})


def _holder_at(store: Path, mount: Mount) -> Holder | None:
    """Who holds the store, if that may be the daemon behind `mount`.

    A daemon that was killed leaves its mount behind, and the next one may serve the store somewhere else. A command that
    has the store for a while has no mount at all.
    """
    holder, _ = storelock.read_lock(store)
    if holder is None or holder.is_command or _is_elsewhere(holder, store, mount.mountpoint):
        return None
    return holder


def _is_elsewhere(holder: Holder, store: Path, mountpoint: Path) -> bool:
    """Whether the holder is seen to serve the store at another place than `mountpoint`."""
    if holder.mountpoint in ("", os.fspath(mountpoint)):
        return False
    there = mounts.mount_at(Path(holder.mountpoint))
    return there is not None and there.store == store


def _say_what_it_was(store: Path, mount: Mount) -> None:
    """Of a mount whose daemon was not waited for."""
    holder, _ = storelock.read_lock(store)
    if holder is None or not _is_elsewhere(holder, store, mount.mountpoint):
        output.talk(f"ciaosfs: the daemon of {store} had died; the next mount shows its last commit.")
        return
    there = mounts.mount_at(Path(holder.mountpoint))
    is_same = there is not None and there.device == mount.device  # bound to a second place
    what = "" if is_same else ", the dead mount of a former daemon"
    output.talk(
        f"ciaosfs: {mount.mountpoint} is unmounted{what}; {store} stays mounted at {holder.mountpoint}."
    )


def _let_go(store: Path) -> None:
    """What clients of the control socket have open is no reason to stay."""
    with connect(store) as connection:
        connection.call("object-let-go")


def _await_daemon(former: Holder, store: Path, mountpoint: Path) -> None:
    def is_another(holder: Holder) -> bool:
        return holder.pid != former.pid or _is_elsewhere(holder, store, mountpoint)

    if not storelock.wait_released(store, WAIT_S, is_another):
        raise DaemonError(
            f"The daemon of {store} has not ended after {WAIT_S:g} s: see {LOG_NAME} in the store."
        )
    holder, ending = storelock.read_lock(store)
    if holder is not None:
        return  # somebody mounted it again already, which needs the former daemon gone
    if ending is None:
        raise DaemonError(
            f"The daemon of {store} died before everything was on the drives: "
            f"the next mount shows the last commit; see {LOG_NAME} in the store."
        )
    if ending.exit_code != 0:
        raise DaemonError(ending.message)
