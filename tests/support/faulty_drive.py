"""A drive that fails when told to, around a real one: the N-th operation, a flipped bit, no space, a failed
sync.

`Faults` is shared by a drive and all its files; tests set its fields at any time. It also counts what is
done, so that a test can say which files were synced.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ciaosfs.base.types import Buffer
from ciaosfs.drive.interface import Drive, DriveFile, FreeSpace
from ciaosfs.drive.local import open_drive

PAGE_BYTES = 4096


@dataclass
class Faults:
    """What goes wrong. Every limit counts down; None means never."""

    writes_left: int | None = None
    """Writes that still succeed; then `write_errno`."""
    write_errno: int = errno.EIO
    bytes_left: int | None = None
    """Bytes that still fit; then ENOSPC, after writing what does. Reserving room counts too."""
    free_reported: FreeSpace | None = None
    """What `free` says instead of the truth."""
    syncs_left: int | None = None
    creates_left: int | None = None
    create_errno: int = errno.EIO
    is_unreadable: bool = False
    """Every read raises EIO."""
    flip_reads: bool = False
    """Every read of more than a head has one bit wrong."""
    before_sync: Callable[[str], None] | None = None
    before_write: Callable[[str, int], None] | None = None
    synced: list[str] = field(default_factory=list)
    """Names of the files whose sync returned, in order."""
    pending: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """By file name the (offset, length) of what was written since the last sync that returned began."""
    reads: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def spend(self, name: str) -> bool:
        """Count a limit down; True when it is used up."""
        with self.lock:
            left = getattr(self, name)
            if left is None:
                return False
            if left <= 0:
                return True
            setattr(self, name, left - 1)
            return False

    def fit(self, length: int) -> int:
        """How many of `length` bytes still fit; takes them."""
        with self.lock:
            if self.bytes_left is None:
                return length
            fitting = min(self.bytes_left, length)
            self.bytes_left -= fitting
            return fitting


def is_direct(offset: int, into: memoryview) -> bool:
    """Whether a device can write into this buffer by itself: whole pages, in the file and in memory."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(into))
    return not (offset % PAGE_BYTES or len(into) % PAGE_BYTES or address % PAGE_BYTES)


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class FaultyFile:
    """A DriveFile under Faults."""

    def __init__(self, inner: DriveFile, name: str, faults: Faults) -> None:
        self._inner = inner
        self._name = name
        self._faults = faults

    def read(self, offset: int, length: int) -> bytes | bytearray:
        self._faults.reads += 1
        if self._faults.is_unreadable:
            raise _error(errno.EIO)
        data = self._inner.read(offset, length)
        if self._faults.flip_reads and len(data) >= 8192:
            data = bytearray(data)
            data[len(data) // 2] ^= 0x10
        return data

    def read_nowait(self, offset: int, length: int) -> bytearray | None:
        if self._faults.is_unreadable or self._faults.flip_reads:
            return None
        return self._inner.read_nowait(offset, length)

    def read_into(self, offset: int, into: memoryview) -> int | None:
        if not is_direct(offset, into):
            return None
        data = self.read(offset, len(into))
        into[: len(data)] = data
        return len(data)

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        if self._faults.before_write is not None:
            self._faults.before_write(self._name, offset)
        if self._faults.spend("writes_left"):
            raise _error(self._faults.write_errno)
        data = b"".join(buffers)
        fitting = self._faults.fit(len(data))
        self._inner.write(offset, [data[:fitting]])
        with self._faults.lock:
            self._faults.pending.setdefault(self._name, []).append((offset, fitting))
        if fitting < len(data):
            raise _error(errno.ENOSPC)

    def sync(self) -> None:
        with self._faults.lock:
            covered = self._faults.pending.get(self._name, [])[:]
        if self._faults.before_sync is not None:
            self._faults.before_sync(self._name)
        if self._faults.spend("syncs_left"):
            raise _error(errno.EIO)
        self._inner.sync()
        with self._faults.lock:
            self._faults.synced.append(self._name)
            left = [write for write in self._faults.pending.get(self._name, []) if write not in covered]
            if left:
                self._faults.pending[self._name] = left
            else:
                self._faults.pending.pop(self._name, None)

    def punch(self, offset: int, length: int) -> None:
        self._inner.punch(offset, length)

    def size(self) -> int:
        return self._inner.size()

    def advise(self, offset: int, length: int) -> None:
        self._inner.advise(offset, length)

    def write_behind(self, offset: int, length: int) -> None:
        self._inner.write_behind(offset, length)

    def preallocate(self, length: int) -> None:
        if self._faults.bytes_left is not None and self._faults.bytes_left < length:
            raise _error(errno.ENOSPC)
        self._inner.preallocate(length)

    def trim(self) -> None:
        self._inner.trim()

    def close(self) -> None:
        self._inner.close()


class FaultyDrive:
    """A Drive under Faults."""

    def __init__(self, inner: Drive, faults: Faults) -> None:
        self._inner = inner
        self.faults = faults

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
        if self.faults.spend("creates_left"):
            raise _error(self.faults.create_errno)
        return FaultyFile(self._inner.create(name), name, self.faults)

    def open(self, name: str, writable: bool = False) -> DriveFile:
        return FaultyFile(self._inner.open(name, writable), name, self.faults)

    def names(self) -> list[str]:
        return self._inner.names()

    def remove(self, name: str) -> None:
        self._inner.remove(name)

    def free(self) -> FreeSpace:
        free = self._inner.free()
        return free if self.faults.free_reported is None else self.faults.free_reported

    def sync_all(self) -> None:
        self._inner.sync_all()

    def is_present(self) -> bool:
        return self._inner.is_present()

    def close(self) -> None:
        self._inner.close()


def lose_power(drive: Path, faults: Faults, dice: random.Random) -> None:
    """What a power cut does to a drive's files, after the process is gone.

    What was synced stays; of every write since, any part may be there, sector by sector, and the file may be
    shorter or hold zeros. So much of the crash contract in drive/interface.py.
    """
    for name, writes in faults.pending.items():
        path = drive / "volumes" / name
        with path.open("r+b") as file:
            for offset, length in writes:
                if dice.random() < 0.3:
                    continue  # it had reached the disk
                for sector in range(offset // 512, -(-(offset + length) // 512)):
                    start, end = max(offset, sector * 512), min(offset + length, (sector + 1) * 512)
                    if dice.random() < 0.5:
                        file.seek(start)
                        file.write(bytes(end - start))
            if dice.random() < 0.5:
                file.truncate(min(offset + dice.randrange(length + 1) for offset, length in writes))
    faults.pending.clear()


class FaultyOpener:
    """For DriveSet.open: opens local drives, each under the faults of its number."""

    def __init__(self) -> None:
        self.faults: dict[int, Faults] = {}

    def __getitem__(self, number: int) -> Faults:
        return self.faults.setdefault(number, Faults())

    def __call__(self, path: str, store_id: bytes, number: int) -> Drive:
        return FaultyDrive(open_drive(path, store_id, number), self[number])
