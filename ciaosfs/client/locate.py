"""From what a person names (a mount point, a path below it, a store's directory, nothing) to the store meant."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ciaosfs.base.config import CONFIG_NAME, load_config
from ciaosfs.base.errors import DaemonError, StoreError, UsageError
from ciaosfs.client import mounts, storelock, transport
from ciaosfs.client.mounts import Mount
from ciaosfs.client.transport import Connection


@dataclass(frozen=True, slots=True)
class Target:
    """A store, and where it is mounted, if it is.

    `is_orphaned`: that mount is dead, its daemon was killed, and the store was named by its own directory. So what looks
    at the store itself can do so.
    """

    store: Path
    mount: Mount | None
    is_orphaned: bool = False


def locate(path: Path | None) -> Target:
    """The store that `path` means; without one, the only mounted store.

    Raises StoreError when there is none, UsageError when several are mounted and none was named.
    """
    if path is None:
        return _only_mounted()
    resolved = mounts.resolve_mountpoint(path)
    mount = _mount_covering(resolved)
    if mount is not None and mount.store is not None:
        return Target(mount.store, mount)
    store = path.resolve()
    try:
        (store / CONFIG_NAME).stat()
    except (FileNotFoundError, NotADirectoryError):
        if store.name == CONFIG_NAME and store.is_file():
            raise StoreError(f"{store} is a file of a store: name its directory, {store.parent}.") from None
        raise StoreError(
            f"{store} is not a ciaosfs store (it has no {CONFIG_NAME}) and not in a mounted one: "
            "name the directory of a store, or a path in its mount."
        ) from None
    except OSError as error:
        raise StoreError(f"{store} cannot be looked at: {error.strerror}.") from error
    load_config(store)
    mount = mounts.mount_of_store(store)
    return Target(store, mount, mount is not None and _may_read_lock(store) and not _has_daemon(store))


def locate_mounted(path: Path | None) -> tuple[Target, Mount]:
    """As `locate`, for what needs a mount. Raises StoreError when the store is not mounted."""
    target = locate(path)
    if target.mount is None:
        raise StoreError(
            f"Store {target.store} is not mounted: mount it with 'ciaosfs mount {target.store}'."
        )
    return target, target.mount


def connect(store: Path) -> Connection:
    """A connection (to be entered) to the daemon of the store. Raises DaemonError or StoreError."""
    return Connection(socket_of(store))


def socket_of(store: Path) -> Path:
    """The control socket of the store's daemon. Raises DaemonError or StoreError.

    The store itself says which it is; to those who may not read that, the mount does.
    """
    mount = mounts.mount_of_store(store)
    if mount is not None and not _may_read_lock(store):
        return transport.mount_socket_path(mount)
    holder, _ = storelock.read_lock(store)
    if holder is not None and holder.socket:
        return Path(holder.socket)
    if mount is not None and (holder is None or holder.is_command):
        raise DaemonError(f"{death_of(store)}.")
    return transport.socket_path(load_config(store).store_id)


def death_of(store: Path) -> str:
    """That the daemon has died, and what to do, without a full stop."""
    return f"The daemon of {store} has died; the next 'ciaosfs mount {store}' shows its last commit"


def _may_read_lock(store: Path) -> bool:
    return os.access(store / storelock.LOCK_NAME, os.R_OK, effective_ids=True)


def _has_daemon(store: Path) -> bool:
    """Whether a daemon has the store; what has it besides is a command that found no daemon."""
    holder, _ = storelock.read_lock(store)
    return holder is not None and not holder.is_command


def _only_mounted() -> Target:
    mounted = mounts.mounts_of_user() or mounts.mounts_of_user(0)  # the machine's
    if not mounted:
        raise StoreError("No store is mounted: name one, or mount it with 'ciaosfs mount STORE'.")
    if len(mounted) > 1:
        places = ", ".join(str(mount.mountpoint) for mount in mounted)
        raise UsageError(f"Several stores are mounted ({places}): name one of them.")
    store = mounted[0].store
    assert store is not None
    return Target(store, mounted[0])


def _mount_covering(path: Path) -> Mount | None:
    """The mount that `path` lies in: the longest mount point above it, the latest when there are several."""
    covering: Mount | None = None
    for mount in mounts.parse_mountinfo(mounts.MOUNTINFO.read_bytes()):
        if path.is_relative_to(mount.mountpoint) and (
            covering is None or len(mount.mountpoint.parts) >= len(covering.mountpoint.parts)
        ):
            covering = mount
    return covering
