"""Drives of a few MiB in directories: what their files occupy counts; more than fits is ENOSPC, part of it written."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from ciaosfs.base.types import Buffer
from ciaosfs.drive.interface import Drive, DriveFile, FreeSpace
from ciaosfs.drive.local import open_drive

PAGE_BYTES = 4096


class SmallDrives:
    """For `open_store(opener=...)`: every drive has `capacity` bytes and a device of its own."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity

    def __call__(self, path: str, store_id: bytes, number: int) -> Drive:
        return _SmallDrive(open_drive(path, store_id, number), self)

    def used(self, path: str) -> int:
        """What the volumes occupy, in whole pages; reserved room is not counted as used."""
        total = 0
        for entry in os.scandir(Path(path) / "volumes"):
            status = entry.stat()
            total += min(status.st_blocks * 512, -(-status.st_size // PAGE_BYTES) * PAGE_BYTES)
        return total


class _SmallFile:
    def __init__(self, inner: DriveFile, drive: _SmallDrive) -> None:
        self._inner = inner
        self._drive = drive

    def read(self, offset: int, length: int) -> bytes | bytearray:
        return self._inner.read(offset, length)

    def read_nowait(self, offset: int, length: int) -> bytearray | None:
        return self._inner.read_nowait(offset, length)

    def read_into(self, offset: int, into: memoryview) -> int | None:
        return self._inner.read_into(offset, into)

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        data = b"".join(buffers)
        free = self._drive.free().free_bytes // PAGE_BYTES * PAGE_BYTES
        fitting = len(data) if len(data) + PAGE_BYTES <= free else max(0, free - PAGE_BYTES)
        self._inner.write(offset, [data[:fitting]])
        if fitting < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        self._inner.sync()

    def punch(self, offset: int, length: int) -> None:
        self._inner.punch(offset, length)

    def size(self) -> int:
        return self._inner.size()

    def advise(self, offset: int, length: int) -> None:
        self._inner.advise(offset, length)

    def write_behind(self, offset: int, length: int) -> None:
        self._inner.write_behind(offset, length)

    def preallocate(self, length: int) -> None:
        """Does nothing, as on a file system that cannot reserve."""

    def trim(self) -> None:
        self._inner.trim()

    def close(self) -> None:
        self._inner.close()


class _SmallDrive:
    def __init__(self, inner: Drive, owner: SmallDrives) -> None:
        self._inner = inner
        self._owner = owner

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
        if self.free().free_bytes < PAGE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return _SmallFile(self._inner.create(name), self)

    def open(self, name: str, writable: bool = False) -> DriveFile:
        return _SmallFile(self._inner.open(name, writable), self)

    def names(self) -> list[str]:
        return self._inner.names()

    def remove(self, name: str) -> None:
        self._inner.remove(name)

    def free(self) -> FreeSpace:
        free = max(0, self._owner.capacity - self._owner.used(self._inner.path))
        return FreeSpace(1_000 + self.number, free, self._owner.capacity)

    def sync_all(self) -> None:
        self._inner.sync_all()

    def is_present(self) -> bool:
        return self._inner.is_present()

    def close(self) -> None:
        self._inner.close()
