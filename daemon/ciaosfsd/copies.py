"""Of two copies of a store, which have one id and so one control socket, one is mounted at a time."""

from __future__ import annotations

from pathlib import Path

from ciaosfs.base.errors import StoreBusyError
from ciaosfs.client import mounts, storelock, transport


def refuse_copy(store: Path, socket: Path) -> None:
    """Raise StoreBusyError when a daemon listens at `socket`, where that of `store`, which the caller holds, is to be.

    Commands would reach the one and mean the other.
    """
    pid = transport.listener_at(socket)
    if pid is None:
        return
    who = f"Process {pid}" if pid else "Another process"
    where = _mount_of(pid)
    which = "another store" if where is None else f"the store {where.store}, mounted at {where.mountpoint},"
    raise StoreBusyError(
        f"{who} serves {which} that has the same id as {store}: one is a copy of the other. Unmount that one first."
    )


def _mount_of(pid: int) -> mounts.Mount | None:
    for mount in mounts.mounts_of_user():
        if mount.store is not None:
            holder, _ = storelock.read_lock(mount.store)
            if holder is not None and holder.pid == pid:
                return mount
    return None
