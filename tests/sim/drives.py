"""Simulated drives: volumes in memory, every operation told to the world, and faults as the world says.

A drive's directory with its `drive.json` is real, so that whoever makes or names drives does so as ever; what would lie
in `volumes/` is a `DriveContent`.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from ciaosfs.base.errors import DriveGoneError
from ciaosfs.base.types import Buffer
from ciaosfs.drive.interface import Drive, DriveFile, FreeSpace
from ciaosfs.drive.local import LocalDrive, open_drive
from tests.sim.disk import PAGE_BYTES, Disk
from tests.support.faulty_drive import is_direct

DEVICE = 1_000_000
"""Each drive is a device of its own; this plus its number."""


class Ground(Protocol):
    """What drives ask of the world they are in."""

    @property
    def is_over(self) -> bool:
        """Whether the crash has come: what is done from now on happens nowhere."""

    @property
    def dice(self) -> Random: ...

    def operation(self, what: str, where: str, detail: str = "") -> None:
        """Something is about to happen to a drive or a file: note it, or crash before it."""


@dataclass
class DriveContent:
    """What is on a drive, and what is wrong with it."""

    capacity: int
    files: dict[str, Disk] = field(default_factory=dict)
    removed: dict[str, Disk] = field(default_factory=dict)
    """Removed in this life: a power cut may bring them back."""
    is_away: bool = False
    fails: set[str] = field(default_factory=set)
    """Operations ("read", "write", "sync", "create") that raise EIO."""
    bytes_left: int | None = None
    """Bytes that still fit, whatever `free` says; then ENOSPC, after writing what does."""
    strays: float = 0.0
    """How often a write lands elsewhere on this drive, or nowhere, and is reported as done."""

    @property
    def used_bytes(self) -> int:
        return sum(disk.used_bytes for disk in self.files.values())

    def copy(self) -> DriveContent:
        """As a kill leaves it: nothing is lost, nothing becomes certain."""
        return self._with({name: disk.copy() for name, disk in self.files.items()})

    def after_cut(self, dice: Random) -> DriveContent:
        files = {name: disk.after_cut(dice) for name, disk in self.files.items()}
        for name, disk in self.removed.items():
            if name not in files and dice.random() < 0.5:
                files[name] = disk.after_cut(dice)
        return self._with(files)

    def _with(self, files: dict[str, Disk]) -> DriveContent:
        return DriveContent(self.capacity, files, is_away=self.is_away)

    def check(self, what: str) -> None:
        if what in self.fails:
            raise OSError(errno.EIO, f"the drive fails to {what}")

    def fit(self, disk: Disk, offset: int, length: int) -> int:
        """How many of `length` bytes at `offset` fit; takes them. What has its place already always fits."""
        old = min(length, max(0, len(disk.now) - offset))
        return old + self._fit_new(length - old)

    def _fit_new(self, length: int) -> int:
        free = max(0, self.capacity - self.used_bytes - PAGE_BYTES)
        if self.bytes_left is not None:
            free = min(free, self.bytes_left)
        fitting = min(free, length)
        if self.bytes_left is not None:
            self.bytes_left -= fitting
        return fitting


class SimFile:
    """A DriveFile."""

    def __init__(self, disk: Disk, content: DriveContent, world: Ground, label: str) -> None:
        self._disk: Disk | None = disk
        self._content = content
        self._world = world
        self._label = label
        self._sync_failed = False

    @property
    def _open(self) -> Disk:
        if self._disk is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._disk

    def read(self, offset: int, length: int) -> bytes:
        self._content.check("read")
        return bytes(self._open.now[offset : offset + length])

    def read_nowait(self, offset: int, length: int) -> bytearray | None:
        if self._content.fails or (offset // PAGE_BYTES) % 3 == 0:
            return None  # as if some pages were not in memory, always the same ones
        return self._open.now[offset : offset + length]

    def read_into(self, offset: int, into: memoryview) -> int | None:
        if not is_direct(offset, into):
            return None
        data = self.read(offset, len(into))
        into[: len(data)] = data
        return len(data)

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        data = b"".join(buffers)
        self._world.operation("write", self._label, f"{offset}+{len(data)} {zlib.crc32(data):08x}")
        self._content.check("write")
        disk = self._open
        fitting = self._content.fit(disk, offset, len(data))
        if self._content.strays and self._world.dice.random() < self._content.strays:
            self._stray(data[:fitting])
        else:
            disk.write(offset, data[:fitting])
        if fitting < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _stray(self, data: bytes) -> None:
        """A write that is confirmed and lands nowhere, or in the wrong place."""
        disks = [disk for disk in self._content.files.values() if disk.now]
        if disks and self._world.dice.random() < 0.5:
            disk = self._world.dice.choice(disks)
            disk.write(self._world.dice.randrange(len(disk.now)) // 512 * 512, data)

    def sync(self) -> None:
        self._world.operation("sync", self._label)
        disk = self._open
        if self._sync_failed:
            raise OSError(errno.EIO, "an earlier sync failed")
        if "sync" in self._content.fails:
            self._sync_failed = True
            disk.sync_failed(self._world.dice)
            raise OSError(errno.EIO, "the drive fails to sync")
        disk.synced()

    def punch(self, offset: int, length: int) -> None:
        self._world.operation("punch", self._label, f"{offset}+{length}")
        self._content.check("write")
        self._open.punch(offset, length)

    def size(self) -> int:
        return len(self._open.now)

    def advise(self, offset: int, length: int) -> None:
        """Does nothing: everything is in memory."""

    def write_behind(self, offset: int, length: int) -> None:
        """Does nothing: what was not synced is never certain here."""

    def preallocate(self, length: int) -> None:
        """Does nothing, as on a file system that cannot reserve."""

    def trim(self) -> None:
        """Does nothing: nothing was reserved."""

    def close(self) -> None:
        self._disk = None


class SimDrive:
    """A Drive."""

    def __init__(self, inner: LocalDrive, content: DriveContent, world: Ground) -> None:
        self._inner = inner
        self._content = content
        self._world = world

    @property
    def number(self) -> int:
        return self._inner.number

    @property
    def uuid(self) -> bytes:
        return self._inner.uuid

    @property
    def path(self) -> str:
        return self._inner.path

    def create(self, name: str) -> DriveFile:
        self._world.operation("create", self._label(name))
        self._check_present()
        self._content.check("create")
        if name in self._content.files:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        if self._content.capacity - self._content.used_bytes < PAGE_BYTES or self._content.bytes_left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        disk = self._content.files[name] = Disk()
        return SimFile(disk, self._content, self._world, self._label(name))

    def open(self, name: str, writable: bool = False) -> DriveFile:
        self._check_present()
        disk = self._content.files.get(name)
        if disk is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return SimFile(disk, self._content, self._world, self._label(name))

    def names(self) -> list[str]:
        self._check_present()
        return sorted(self._content.files)

    def remove(self, name: str) -> None:
        self._world.operation("remove", self._label(name))
        self._check_present()
        self._content.check("write")
        disk = self._content.files.pop(name, None)
        if disk is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        self._content.removed[name] = disk

    def free(self) -> FreeSpace:
        self._check_present()
        content = self._content
        free = max(0, content.capacity - content.used_bytes)
        return FreeSpace(DEVICE + self.number, free, content.capacity)

    def sync_all(self) -> None:
        self._world.operation("sync all", str(self.number))
        self._content.check("sync")
        for disk in self._content.files.values():
            disk.synced()
        self._content.removed.clear()

    def is_present(self) -> bool:
        return not self._content.is_away and self._inner.is_present()

    def close(self) -> None:
        self._inner.close()

    def _label(self, name: str) -> str:
        return f"{self.number}/{name}"

    def _check_present(self) -> None:
        if not self.is_present():
            raise DriveGoneError(f"Drive {self.number} is no longer at {self.path}.")


def opener(contents: Callable[[bytes], DriveContent], world: Ground) -> Callable[[str, bytes, int], Drive]:
    """For `open_store(opener=...)`. `contents` gives what is on the drive of this uuid."""

    def open_simulated(path: str, store_id: bytes, number: int) -> Drive:
        inner = open_drive(path, store_id, number)
        content = contents(inner.uuid)
        if content.is_away:
            inner.close()
            raise DriveGoneError(f"Drive {number} at {path} is not there.")
        return SimDrive(inner, content, world)

    return open_simulated
