"""A directory as a drive: `drive.json` says whose it is, `volumes/` holds the volume files.

Every path is resolved from the descriptor of the directory that was opened at the start, never by name from
the root: if the drive is renamed away, unmounted, or another directory takes its place, nothing lands in the
wrong one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from ciaosfs.base.errors import DriveGoneError, ForeignDriveError, StoreError, UsageError
from ciaosfs.drive.holding import Hold
from ciaosfs.drive.identity import (
    IDENTITY_BYTES_MAX,
    IDENTITY_NAME,
    DriveIdentity,
    Shape,
    decode_identity,
    encode_identity,
)
from ciaosfs.drive.interface import FreeSpace
from ciaosfs.drive.localfile import LocalFile
from ciaosfs.drive.syscalls import sync_file_system

VOLUMES_NAME = "volumes"
_IDENTITY_DRAFT = IDENTITY_NAME + ".tmp"
_VOLUME_NAME = re.compile(r"[0-9a-f]{16}\.vol")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def volume_name(volume_id: int) -> str:
    """Return the name of a volume's file: the only names a drive takes."""
    return f"{volume_id:016x}.vol"


def make_drive(
    path: str, *, store_id: bytes, number: int, drive_uuid: bytes | None = None, shape: Shape | None = None
) -> DriveIdentity:
    """Make the directory `path` (created if missing, else empty) a drive of a store of that shape.

    When it returns the drive survives a crash. Raises UsageError when the directory is not empty or already a
    drive, and OSError.
    """
    identity = DriveIdentity(store_id, drive_uuid or os.urandom(16), number, shape)
    _make_directory(Path(path).absolute())
    root = os.open(path, _DIRECTORY)
    try:
        # lost+found: a fresh ext4; the other two: an earlier attempt that a crash cut short.
        strangers = set(_list(root)) - {"lost+found", VOLUMES_NAME, _IDENTITY_DRAFT}
        if IDENTITY_NAME in strangers:
            raise UsageError(f"{path} already is a drive of a store: give an empty directory.")
        if strangers:
            raise UsageError(f"{path} is not empty: give an empty directory for a drive.")
        _make_volumes(root, path)
        _write_identity(root, identity)
    finally:
        os.close(root)
    return identity


def open_drive(path: str, store_id: bytes, number: int, *, to_look: bool = False) -> LocalDrive:
    """Open the drive at `path`, which must be drive `number` of the store, for this process alone.

    With `to_look` others may have it open, too: nothing may be written then. Raises DriveGoneError when there is none or it
    cannot be read, StoreError when it is another store's, another drive of this one, newer than this program or has an
    unreadable identity, StoreBusyError when another process has it.
    """
    try:
        root = os.open(path, _DIRECTORY)
    except OSError as error:
        raise DriveGoneError(f"Drive {number} at {path} cannot be opened: {error.strerror}.") from error
    try:
        identity = _read_identity(root, path, number)
        if identity.store_id != store_id:
            owner = identity.store_id
            raise ForeignDriveError(f"{path} is a drive of another store ({UUID(bytes=owner)}).", owner)
        if identity.number != number:
            raise StoreError(f"{path} is drive {identity.number} of this store, not drive {number}.")
        return LocalDrive(path, root, identity, None if to_look else Hold.take(root, path, number))
    except BaseException:
        os.close(root)
        raise


class LocalDrive:
    """A drive in a local directory; see `interface.Drive` for what its methods promise."""

    def __init__(self, path: str, root: int, identity: DriveIdentity, hold: Hold | None) -> None:
        """For `open_drive`, which hands over the descriptor `root` of the directory, and `hold`."""
        status = os.fstat(root)
        self._path = path
        self._directory = Path(path).absolute()  # a daemon changes its working directory
        self._root = root
        self._place = (status.st_dev, status.st_ino)
        self._identity = identity
        self._hold = hold

    @property
    def number(self) -> int:
        return self._identity.number

    @property
    def uuid(self) -> bytes:
        return self._identity.drive_uuid

    @property
    def path(self) -> str:
        return self._path

    def create(self, name: str) -> LocalFile:
        self._check(name)
        with _opened(VOLUMES_NAME, self._root) as volumes:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            file = LocalFile(os.open(name, flags, 0o600, dir_fd=volumes))
            try:
                file.sync()
                os.fsync(volumes)
            except BaseException:
                file.close()
                with suppress(OSError):  # an empty file left over is no volume; recovery would wonder
                    os.unlink(name, dir_fd=volumes)
                raise
        return file

    def open(self, name: str, writable: bool = False) -> LocalFile:
        self._check(name)
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
        return LocalFile(os.open(f"{VOLUMES_NAME}/{name}", flags, dir_fd=self._root))

    def names(self) -> list[str]:
        self._check_present()
        try:
            with _opened(VOLUMES_NAME, self._root) as volumes:
                return sorted(name for name in _list(volumes) if _VOLUME_NAME.fullmatch(name))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DriveGoneError(
                f"Drive {self.number} at {self._path} has no directory {VOLUMES_NAME!r} any more: bring it back, or "
                "replace the drive with 'ciaosfs drive replace'."
            ) from error

    def remove(self, name: str) -> None:
        self._check(name)
        os.unlink(f"{VOLUMES_NAME}/{name}", dir_fd=self._root)

    def free(self) -> FreeSpace:
        self._check_present()
        status = os.statvfs(self._root)
        total = status.f_blocks - (status.f_bfree - status.f_bavail)
        return FreeSpace(self._place[0], status.f_bavail * status.f_frsize, total * status.f_frsize)

    def sync_all(self) -> None:
        sync_file_system(self._root)

    def is_present(self) -> bool:
        try:
            found = self._directory.stat()
            os.stat(IDENTITY_NAME, dir_fd=self._root)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._place

    def close(self) -> None:
        root, self._root = self._root, -1
        if root >= 0:
            os.close(root)
            if self._hold is not None:
                self._hold.release()

    def _check(self, name: str) -> None:
        """Refuse what is no volume's name (our bug), and any use of a drive that is away."""
        assert _VOLUME_NAME.fullmatch(name), f"{name!r} is not the name of a volume"
        self._check_present()

    def _check_present(self) -> None:
        if not self.is_present():
            raise DriveGoneError(f"Drive {self.number} is no longer at {self._path}.")


def _make_volumes(root: int, path: str) -> None:
    """Make the directory of volumes, or accept the empty one of an attempt that a crash cut short."""
    with suppress(FileExistsError):
        os.mkdir(VOLUMES_NAME, mode=0o700, dir_fd=root)
    with _opened(VOLUMES_NAME, root) as volumes:
        if _list(volumes):
            raise UsageError(f"{path} holds volumes but no identity: give an empty directory.")
        os.fsync(volumes)
    os.fsync(root)


def _read_identity(root: int, path: str, number: int) -> DriveIdentity:
    try:
        descriptor = os.open(IDENTITY_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        try:
            content = os.read(descriptor, IDENTITY_BYTES_MAX + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        # An empty mount point looks like this: the drive is away, not damaged.
        raise DriveGoneError(f"{path} has no {IDENTITY_NAME}: drive {number} is not there.") from error
    except OSError as error:
        raise DriveGoneError(f"Drive {number} at {path} cannot be read: {error.strerror}.") from error
    return decode_identity(content, path)


def _write_identity(root: int, identity: DriveIdentity) -> None:
    """Write beside, sync, rename, sync the directory: after a crash there is the whole file or none."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    draft = LocalFile(os.open(_IDENTITY_DRAFT, flags, 0o600, dir_fd=root))
    try:
        draft.write(0, [encode_identity(identity)])
        draft.sync()
    finally:
        draft.close()
    os.rename(_IDENTITY_DRAFT, IDENTITY_NAME, src_dir_fd=root, dst_dir_fd=root)
    os.fsync(root)


@contextmanager
def _opened(name: str, directory: int) -> Iterator[int]:
    """Open the directory `name` inside `directory` for the length of a with block."""
    descriptor = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _list(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


def _make_directory(path: Path) -> None:
    """Make a directory and what is missing above it, each entry of its parent synced."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    parent = os.open(path.parent, _DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
