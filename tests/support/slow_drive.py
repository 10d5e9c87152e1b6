"""A drive that takes its time: every operation can be delayed, or hang until it is let go.

`Pace` belongs to one drive and all its files; tests set it at any time. Operations are named as the methods of
`drive.interface` are, and `look` stands for those by which a drive is looked at. A test that lets something hang must
release it before it ends: threads wait in it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from ciaosfs.base.types import Buffer
from ciaosfs.drive.interface import Drive, DriveFile, FreeSpace
from ciaosfs.drive.local import open_drive

OPERATIONS = ("read", "write", "sync", "create", "open", "names", "remove", "look", "punch")
Opener = Callable[[str, bytes, int], Drive]


class Pace:
    """How slow a drive is."""

    def __init__(self) -> None:
        self.delay_s: dict[str, float] = {}
        self._hanging: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self.stuck = 0
        """Calls that hang at this moment."""
        self.calls: dict[str, int] = dict.fromkeys(OPERATIONS, 0)

    def hang(self, *operations: str) -> None:
        """These hang from now on; all without a name."""
        for operation in operations or OPERATIONS:
            self._hanging.setdefault(operation, threading.Event())

    def release(self) -> None:
        """Whatever hangs goes on."""
        for operation in list(self._hanging):
            self._hanging.pop(operation).set()

    def wait(self, operation: str) -> None:
        """Called by the drive, in a thread, before each operation."""
        with self._lock:
            self.calls[operation] += 1
        event = self._hanging.get(operation)
        if event is not None:
            with self._lock:
                self.stuck += 1
            event.wait()
            with self._lock:
                self.stuck -= 1
        delay = self.delay_s.get(operation, 0.0)
        if delay:
            time.sleep(delay)


class SlowFile:
    """A DriveFile at a pace. What is read without waiting is not slow: it is in memory."""

    def __init__(self, inner: DriveFile, pace: Pace) -> None:
        self._inner = inner
        self._pace = pace

    def read(self, offset: int, length: int) -> bytes | bytearray:
        self._pace.wait("read")
        return self._inner.read(offset, length)

    def read_nowait(self, offset: int, length: int) -> bytearray | None:
        return self._inner.read_nowait(offset, length)

    def read_into(self, offset: int, into: memoryview) -> int | None:
        self._pace.wait("read")
        return self._inner.read_into(offset, into)

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        self._pace.wait("write")
        self._inner.write(offset, buffers)

    def sync(self) -> None:
        self._pace.wait("sync")
        self._inner.sync()

    def punch(self, offset: int, length: int) -> None:
        self._pace.wait("punch")
        self._inner.punch(offset, length)

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


class SlowDrive:
    """A Drive at a pace."""

    def __init__(self, inner: Drive, pace: Pace) -> None:
        self._inner = inner
        self.pace = pace

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
        self.pace.wait("create")
        return SlowFile(self._inner.create(name), self.pace)

    def open(self, name: str, writable: bool = False) -> DriveFile:
        self.pace.wait("open")
        return SlowFile(self._inner.open(name, writable), self.pace)

    def names(self) -> list[str]:
        self.pace.wait("names")
        return self._inner.names()

    def remove(self, name: str) -> None:
        self.pace.wait("remove")
        self._inner.remove(name)

    def free(self) -> FreeSpace:
        self.pace.wait("look")
        return self._inner.free()

    def sync_all(self) -> None:
        self.pace.wait("sync")
        self._inner.sync_all()

    def is_present(self) -> bool:
        return self._inner.is_present()

    def close(self) -> None:
        self._inner.close()


class SlowDrives:
    """For DriveSet.open and open_store: drives opened by `inner`, each at the pace of its number."""

    def __init__(self, inner: Opener = open_drive) -> None:
        self._inner = inner
        self._paces: dict[int, Pace] = {}

    def __getitem__(self, number: int) -> Pace:
        return self._paces.setdefault(number, Pace())

    def __call__(self, path: str, store_id: bytes, number: int) -> Drive:
        return SlowDrive(self._inner(path, store_id, number), self[number])

    def release(self) -> None:
        """Whatever hangs on any drive goes on."""
        for pace in self._paces.values():
            pace.release()
