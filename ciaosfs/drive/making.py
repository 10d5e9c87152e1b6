"""Making a directory a drive of an open store, and a directory of what was one. Blocking."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ciaosfs.base.errors import UsageError
from ciaosfs.drive.identity import IDENTITY_BYTES_MAX, IDENTITY_NAME, DriveIdentity, decode_identity
from ciaosfs.drive.interface import FreeSpace
from ciaosfs.drive.local import VOLUMES_NAME, make_drive, open_drive


def identity_at(path: Path) -> DriveIdentity | None:
    """Whose drive the directory is; None when it is none. Raises StoreError when its identity is unreadable, OSError."""
    try:
        with (path / IDENTITY_NAME).open("rb") as file:
            content = file.read(IDENTITY_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return decode_identity(content, str(path))


def make_new_drive(path: Path, identity: DriveIdentity, known: Collection[bytes]) -> None:
    """Make `path` the drive that `identity` says. When it returns the drive survives a crash.

    An empty directory, or none yet, becomes one; and so does a drive of the same store whose uuid is not `known`: it was
    let go, or a crash came before the configuration named it, and nothing refers to what is on it. Raises UsageError for
    anything else, StoreError, OSError.
    """
    found = identity_at(path)
    if found is not None and found.store_id == identity.store_id:
        if found.drive_uuid in known:
            raise UsageError(f"{path} is drive {found.number} of this store already: give another directory.")
        erase_drive(path, found)
    make_drive(
        str(path),
        store_id=identity.store_id,
        number=identity.number,
        drive_uuid=identity.drive_uuid,
        shape=identity.shape,
    )


def erase_drive(path: Path, identity: DriveIdentity) -> None:
    """Delete the volumes of a drive that nothing refers to, and at last its identity; the directory stays, empty.

    Another drive found there, or none, is left alone. Raises DriveGoneError, StoreError, OSError.
    """
    if identity_at(path) != identity:
        return
    drive = open_drive(str(path), identity.store_id, identity.number)
    try:
        for name in drive.names():
            drive.remove(name)
    finally:
        drive.close()
    with suppress(OSError):  # something of somebody else's is in it
        (path / VOLUMES_NAME).rmdir()
    (path / IDENTITY_NAME).unlink()


def space_at(path: Path) -> FreeSpace:
    """The room on the file system that `path`, which need not exist yet, is on. Raises OSError."""
    while not path.exists() and path != path.parent:
        path = path.parent
    status = os.statvfs(path)
    total = status.f_blocks - (status.f_bfree - status.f_bavail)
    return FreeSpace(path.stat().st_dev, status.f_bavail * status.f_frsize, total * status.f_frsize)


def check_parent(path: Path) -> None:
    """Raise UsageError unless a directory could be made at `path`: what it would lie in is one."""
    if not path.parent.exists():
        raise UsageError(f"{path.parent} does not exist: make it first, or give another path.")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a directory: give another path.")


def check_outside_drives(path: Path) -> None:
    """Raise UsageError when `path` lies inside a drive, whose own files it would lie among."""
    for above in path.resolve().parents:
        if (above / IDENTITY_NAME).exists() and (above / VOLUMES_NAME).is_dir():
            raise UsageError(f"{path} lies inside the drive at {above}: give a directory outside of it.")


def check_place(path: Path, store: Path, others: Collection[Path]) -> None:
    """Raise UsageError unless `path` may become a drive beside the store and the drives at `others`."""
    if not path.is_absolute():
        raise UsageError(f"{path} is not an absolute path: give one that starts with a slash.")
    place = path.resolve()
    if place == store.resolve():
        raise UsageError(f"{path} is the store itself: give a directory of its own for the drive.")
    for other in (each.resolve() for each in others):
        if place == other:
            raise UsageError(f"{path} is a drive of this store already: give another directory.")
        if place.is_relative_to(other) or other.is_relative_to(place):
            raise UsageError(
                f"{path} and the drive at {other} lie one inside the other: give separate directories."
            )
    check_outside_drives(path)
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is not a directory: give a directory for the drive.")
    if not path.exists():
        check_parent(path)
