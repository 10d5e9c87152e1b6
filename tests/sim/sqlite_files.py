"""A VFS under SQLite that tells the world of every write, cut and sync, and remembers what of it is certain.

It becomes SQLite's default, so the product opens its database as ever. Files lie where they always do (SQLite maps its
shared memory from a real file) and nothing is ever really synced: `Disk` knows what a power cut would leave. What
the product writes beside SQLite it syncs by `os.fsync`, which is watched as well.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import apsw
import pytest

from tests.sim.disk import Disk
from tests.sim.drives import Ground

NAME, BASE = "ciaosfs-simulated", "unix"
_INDEX = "-shm"
"""SQLite's index of its log: made anew by whoever opens the database after a crash."""


class DatabaseFiles:
    """The files of one directory, as SQLite and the product write them."""

    def __init__(self, directory: Path, world: Ground) -> None:
        self.directory = directory
        self.fails: set[str] = set()
        """"write": no space; "sync": I/O error."""
        self._world = world
        self._disks: dict[str, Disk] = {}
        self._connections: list[apsw.Connection] = []

    def disk(self, path: Path) -> Disk:
        disk = self._disks.get(path.name)
        if disk is None or not path.exists():
            content = bytearray(path.read_bytes()) if path.exists() else bytearray()
            disk = self._disks[path.name] = Disk(content)
        return disk

    def write(self, path: Path, disk: Disk, offset: int, data: bytes) -> None:
        # SQLite draws the salts of its log by itself, so their checksums are no part of the trace.
        is_log = path.name.endswith("-wal")
        checksum = "" if is_log else f" {zlib.crc32(data):08x}"
        self._world.operation("write", path.name, f"{offset}+{len(data)}{checksum}")
        if "write" in self.fails and not self._world.is_over:
            raise apsw.FullError("no space, says the simulation")
        disk.write(offset, data)

    def truncate(self, path: Path, disk: Disk, size: int) -> None:
        self._world.operation("truncate", path.name, str(size))
        disk.truncate(size)

    def sync(self, path: Path, disk: Disk) -> None:
        self._world.operation("sync", path.name)
        if "sync" in self.fails and not self._world.is_over:
            disk.sync_failed(self._world.dice)
            raise apsw.IOError("the sync failed, says the simulation")
        disk.synced()

    def opened(self, connection: apsw.Connection) -> None:
        self._connections.append(connection)

    def close_all(self) -> None:
        """What the process had open when it died; after a clean end there is nothing."""
        for connection in self._connections:
            connection.close(True)
        self._connections.clear()

    def fsynced(self, path: Path) -> None:
        """Somebody wrote by himself and asks for a sync: all that is there is certain, if no crash comes before."""
        self._world.operation("fsync", path.name)
        if "sync" in self.fails and not self._world.is_over:
            raise OSError(errno.EIO, "the sync failed, says the simulation")
        disk = self._disks.setdefault(path.name, Disk())
        disk.now[:] = path.read_bytes()
        disk.since.clear()
        disk.certain = None

    def after(self, dice: Random | None) -> dict[str, bytes]:
        """What a power cut leaves of the files, or, without dice, a kill; what only that leaves stays uncertain."""
        left = {}
        for name, disk in sorted(self._disks.items()):
            if name.endswith(_INDEX) or not (self.directory / name).exists():
                continue
            left[name] = bytes(disk.now if dice is None else disk.after_cut(dice).now)
        return left

    def uncertain(self) -> dict[str, Disk]:
        """The state of every file as a kill leaves it."""
        return {name: disk.copy() for name, disk in self._disks.items()}

    def replace(self, left: dict[str, bytes], disks: dict[str, Disk]) -> None:
        """Make the files what a crash left. Nobody has them open."""
        for path in self.directory.iterdir():
            if path.name not in left:
                path.unlink()
        for name, content in left.items():
            (self.directory / name).write_bytes(content)
        self._disks = {name: disks.get(name) or Disk(bytearray(content)) for name, content in left.items()}


class _File(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], owner: _Vfs) -> None:
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else str(name))
        files = owner.files
        self._files = files if files is not None and path.parent == files.directory else None
        self._path = path
        self._disk = self._files.disk(path) if self._files is not None else Disk()
        super().__init__(BASE, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._files is not None:
            self._files.write(self._path, self._disk, offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        if self._files is not None:
            self._files.truncate(self._path, self._disk, newsize)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        if self._files is None:
            super().xSync(flags)
        else:
            self._files.sync(self._path, self._disk)


class _Vfs(apsw.VFS):
    def __init__(self, randomness: Random) -> None:
        self.files: DatabaseFiles | None = None
        self._randomness = randomness
        super().__init__(NAME, BASE, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File(name, flags, self)

    def xRandomness(self, numbytes: int) -> bytes:
        return self._randomness.randbytes(numbytes)


@contextmanager
def simulated(files: DatabaseFiles, seed: int) -> Iterator[None]:
    """While the context lasts SQLite and `os.fsync` work through `files` where it is about its directory."""
    vfs = _Vfs(Random(seed))
    vfs.files = files
    apsw.randomness(0)  # SQLite's generator is to be seeded anew, by us

    def watched(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.parent == files.directory and path.is_file():
            files.fsynced(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apsw, "connection_hooks", [*apsw.connection_hooks, files.opened])
        patch.setattr(os, "fsync", watched)
        patch.setattr(os, "fdatasync", lambda descriptor: None)
        try:
            yield
        finally:
            vfs.unregister()
            apsw.randomness(0)
