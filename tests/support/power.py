"""Drives that know what was synced, and what is left of them when the power goes.

`PoweredDrives` opens local drives and remembers, beside each file, its content as of the last sync and every write and
punch since. `cut` makes a store of what a power cut at this moment could leave: synced bytes for certain, of the rest
whatever the dice say, each sector by itself (see the crash contract in `drive/interface.py`). The moment can be any:
also in the middle of a sync, from the callback `before`.

The metadata database is no drive. SQLite never syncs it between checkpoints, so after a cut it is as of some earlier
moment; `cut` leaves it as it is, and tests put another one in its place.
"""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from ciaosfs.base.types import Buffer
from ciaosfs.drive.interface import Drive, DriveFile, FreeSpace
from ciaosfs.drive.local import open_drive
from tests.support.builders import Store

SECTOR_BYTES = 512
PAGE_BYTES = 4096


class Fate(Enum):
    """What becomes of bytes that were not synced."""

    LOST = "lost"
    KEPT = "kept"
    WRITES = "each write is kept or lost"
    SECTORS = "each sector is kept or lost"


@dataclass(slots=True)
class _Change:
    """Bytes at an offset, or a hole of that length."""

    offset: int
    data: bytes


@dataclass
class Disk:
    """One volume file: what is certain, and what was done since the last sync."""

    certain: bytearray = field(default_factory=bytearray)
    since: list[_Change] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def changed(self, change: _Change) -> None:
        with self.lock:
            self.since.append(change)

    def synced(self) -> None:
        """All changes are certain now."""
        with self.lock:
            for change in self.since:
                _apply(self.certain, change.offset, change.data)
            self.since.clear()

    def after_cut(self, fate: Fate, dice: random.Random) -> bytes:
        with self.lock:
            left = bytearray(self.certain)
            for change in self.since:
                if fate is Fate.KEPT or (fate is Fate.WRITES and dice.random() < 0.5):
                    _apply(left, change.offset, change.data)
                elif fate is Fate.SECTORS:
                    for at in range(0, len(change.data), SECTOR_BYTES):
                        if dice.random() < 0.5:
                            _apply(left, change.offset + at, change.data[at : at + SECTOR_BYTES])
                if fate is not Fate.LOST and dice.random() < 0.5:
                    _apply(left, change.offset + len(change.data), b"")
            return bytes(left)


def _apply(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset + len(data):
        content.extend(bytes(offset + len(data) - len(content)))
    content[offset : offset + len(data)] = data


class PoweredFile:
    """A DriveFile whose writes are remembered until they are synced."""

    def __init__(self, inner: DriveFile, disk: Disk, owner: PoweredDrives, label: str) -> None:
        self._inner = inner
        self._disk = disk
        self._owner = owner
        self._label = label

    def read(self, offset: int, length: int) -> bytes | bytearray:
        return self._inner.read(offset, length)

    def read_nowait(self, offset: int, length: int) -> bytearray | None:
        return self._inner.read_nowait(offset, length)

    def read_into(self, offset: int, into: memoryview) -> int | None:
        return self._inner.read_into(offset, into)

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        data = b"".join(buffers)
        with self._owner.turn:
            self._owner.before("write", self._label)
            self._inner.write(offset, buffers)
            self._disk.changed(_Change(offset, data))

    def sync(self) -> None:
        with self._owner.turn:
            self._owner.before("sync", self._label)
            if self._owner.is_honest:
                self._inner.sync()
                self._disk.synced()

    def punch(self, offset: int, length: int) -> None:
        start = -(-offset // PAGE_BYTES) * PAGE_BYTES
        end = (offset + length) // PAGE_BYTES * PAGE_BYTES
        with self._owner.turn:
            self._owner.before("punch", self._label)
            self._inner.punch(offset, length)
            if start < end:
                self._disk.changed(_Change(start, bytes(end - start)))

    def size(self) -> int:
        return self._inner.size()

    def advise(self, offset: int, length: int) -> None:
        self._inner.advise(offset, length)

    def write_behind(self, offset: int, length: int) -> None:
        self._inner.write_behind(offset, length)

    def preallocate(self, length: int) -> None:
        self._inner.preallocate(length)

    def trim(self) -> None:
        self._inner.trim()

    def close(self) -> None:
        self._inner.close()


class PoweredDrive:
    """A Drive of PoweredFiles."""

    def __init__(self, inner: Drive, owner: PoweredDrives) -> None:
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
        with self._owner.turn:
            self._owner.before("create", f"{self.number}/{name}")
            return self._file(self._inner.create(name), name, fresh=True)

    def open(self, name: str, writable: bool = False) -> DriveFile:
        return self._file(self._inner.open(name, writable), name, fresh=False)

    def _file(self, file: DriveFile, name: str, *, fresh: bool) -> PoweredFile:
        disk = self._owner.disk(self.number, name, file, fresh=fresh)
        return PoweredFile(file, disk, self._owner, f"{self.number}/{name}")

    def names(self) -> list[str]:
        return self._inner.names()

    def remove(self, name: str) -> None:
        with self._owner.turn:
            self._inner.remove(name)
            self._owner.removed(self.number, name)

    def free(self) -> FreeSpace:
        return self._inner.free()

    def sync_all(self) -> None:
        if self._owner.is_honest:
            self._owner.synced_all(self.number)

    def is_present(self) -> bool:
        return self._inner.is_present()

    def close(self) -> None:
        self._inner.close()


class PoweredDrives:
    """For `open_store(opener=...)`: all drives of one store. What was there when it was made counts as synced.

    `before` is called in worker threads before every write, sync, punch and create, with what and where; nothing else is
    done to any drive meanwhile, so a copy made there is one moment. With `is_honest` False syncs say yes and do
    nothing: the canary.
    """

    def __init__(self) -> None:
        self.before: Callable[[str, str], None] = lambda what, where: None
        self.turn = threading.RLock()
        self.is_honest = True
        self._disks: dict[tuple[int, str], Disk] = {}
        self._lock = threading.Lock()

    def __call__(self, path: str, store_id: bytes, number: int) -> Drive:
        return PoweredDrive(open_drive(path, store_id, number), self)

    def disk(self, number: int, name: str, file: DriveFile, *, fresh: bool) -> Disk:
        with self._lock:
            disk = self._disks.get((number, name))
            if disk is None:
                content = bytearray() if fresh else bytearray(file.read(0, file.size()))
                disk = self._disks[number, name] = Disk(content)
            return disk

    def synced_all(self, number: int) -> None:
        """Everything on a drive is certain now."""
        with self._lock:
            disks = [disk for (owner, _), disk in self._disks.items() if owner == number]
        for disk in disks:
            disk.synced()

    def removed(self, number: int, name: str) -> None:
        with self._lock:
            self._disks.pop((number, name), None)

    def unsynced(self) -> dict[int, int]:
        """How many bytes of each drive a power cut could take now."""
        sums: dict[int, int] = {}
        with self._lock:
            for (number, _), disk in self._disks.items():
                sums[number] = sums.get(number, 0) + sum(len(change.data) for change in disk.since)
        return sums

    def cut(self, store: Store, target: Path, fate: Fate, dice: random.Random) -> Store:
        """A copy of `store` as a power cut now leaves it: another boot, and of what was not synced what `fate` says."""
        left = store.copy(target)
        with self._lock:
            disks = dict(self._disks)
        there = {drive.number for drive in left.config.drives} - set(store.hidden())
        for (number, name), disk in disks.items():
            if number in there:
                (left.drive(number) / "volumes" / name).write_bytes(disk.after_cut(fate, dice))
        left.reboot()
        return left


def copy_database(store: Store, target: Path) -> Store:
    """Only the metadata of `store`, to be put back later by `Store.replace_database`."""
    shutil.copytree(store.path / "meta", target / "meta")
    return Store(target)
