"""Whole stores in a temporary directory, opened in this process without FUSE, copied as a crash leaves them, harmed.

A *killed* daemon is simulated by copying the store's directory while it is open: everything that was written is
there, synced or not. A *power cut* is simulated by `power.PoweredDrives`, which knows what was synced.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from ciaosfs.base import limits
from ciaosfs.base.config import StoreConfig, load_config
from ciaosfs.drive.local import open_drive
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.fs.opening import open_store
from ciaosfs.fs.requester import Requester
from ciaosfs.jobs.opening import OpenJobs, open_jobs
from ciaosfs.meta import integrity
from ciaosfs.meta.inodes import ROOT_INO
from ciaosfs.meta.metadata import Metadata
from ciaosfs.offline.mkfs import make_store, plan_store
from ciaosfs.volume.driveset import DriveOpener

WHO = Requester(1000, 1000, 4242, 0o022)
AWAY = ".away"


@dataclass(frozen=True)
class Store:
    """A store's directory; nobody need have it open."""

    path: Path

    @classmethod
    def make(cls, path: Path, data_count: int = 4, parity_count: int = 2, spare: int = 0) -> Store:
        """A new store whose drives are directories inside it, so that a copy of it is a store too."""
        drives = [path / "drives" / f"d{number}" for number in range(data_count + parity_count + spare)]
        make_store(plan_store(path, drives, data_count, parity_count))
        return cls(path)

    @property
    def config(self) -> StoreConfig:
        """Commits only happen when they are asked for: the interval is longer than any test."""
        return replace(load_config(self.path), commit_interval_s=limits.COMMIT_INTERVAL_S_MAX)

    @property
    def database(self) -> Path:
        return self.path / "meta" / "meta.sqlite"

    @asynccontextmanager
    async def open(
        self, opener: DriveOpener = open_drive, workers: Workers | None = None
    ) -> AsyncIterator[FileSystem]:
        """A running file system; leaving it commits everything."""
        async with (
            workers or Workers() as threads,
            open_store(self.config, threads, opener=opener) as filesystem,
        ):
            yield filesystem

    @asynccontextmanager
    async def open_with_jobs(
        self, opener: DriveOpener = open_drive, config: StoreConfig | None = None
    ) -> AsyncIterator[tuple[FileSystem, OpenJobs]]:
        """As `open`, with the background jobs running; they take all the time there is unless `config` says else."""
        config = config or replace(self.config, job_share=1.0)
        async with (
            Workers() as threads,
            open_store(config, threads, opener=opener) as filesystem,
            open_jobs(config, filesystem.parts) as jobs,
        ):
            yield filesystem, jobs

    def copy(self, target: Path) -> Store:
        """What `kill -9` leaves at this moment; may be called while the store is open, from its loop or at rest."""
        shutil.copytree(self.path, target, symlinks=True, copy_function=_copy_unless_gone)
        return Store(target)

    def drive(self, number: int) -> Path:
        return next(drive.path for drive in self.config.drives if drive.number == number)

    def hide(self, number: int) -> None:
        """Take a drive away, as by unplugging it."""
        path = self.drive(number)
        path.rename(path.with_name(path.name + AWAY))

    def bring_back(self, number: int) -> None:
        path = self.drive(number)
        path.with_name(path.name + AWAY).rename(path)

    def hidden(self) -> list[int]:
        return [drive.number for drive in self.config.drives if not drive.path.exists()]

    def reboot(self) -> None:
        """Let the next opening believe that the machine went down since: nothing unsynced is trusted then."""
        (self.path / "meta" / "boot-id").write_bytes(b"another boot\n")

    def lose_database(self) -> None:
        for file in self.database.parent.glob(self.database.name + "*"):
            file.unlink()

    def replace_database(self, other: Store) -> None:
        """Put the database of another copy of this store in the place of this one's."""
        self.lose_database()
        for file in other.database.parent.glob(other.database.name + "*"):
            if not file.name.endswith("-shm"):
                shutil.copyfile(file, self.database.with_name(file.name))

    def volumes(self, number: int) -> list[Path]:
        """The volume files of a drive, oldest first."""
        return sorted((self.drive(number) / "volumes").iterdir())

    def used_bytes(self) -> int:
        """What the volumes of all drives occupy."""
        files = [file for drive in self.config.drives for file in self.volumes(drive.number)]
        return sum(os.stat(file).st_blocks * 512 for file in files)


def _copy_unless_gone(source: str, target: str) -> None:
    """Threads may delete files meanwhile, as the journal of an image is deleted: those are gone from the copy, or whole."""
    try:
        shutil.copy2(source, target)
    except FileNotFoundError as error:
        if error.filename != source:
            raise


def complaints(database: Path) -> list[str]:
    """What is wrong with the metadata of a store that is not open, SQLite's structures and our invariants."""
    meta = Metadata.open(database)
    try:
        with meta.reader() as reader:
            return [*reader.quick_check(), *integrity.check(reader)]
    finally:
        meta.close()


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread or task does: at most 10 s, looking every 10 ms."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - nobody tells us
            await trio.sleep(0.01)


async def put(filesystem: FileSystem, name: bytes, data: bytes, parent: int = ROOT_INO) -> int:
    """A file of this content, made or replaced; returns its inode number. Nothing is synced."""
    found = filesystem.lookup(parent, name)
    if found is None:
        handle, found = await filesystem.create(parent, name, 0o644, os.O_RDWR, WHO)
    else:
        handle = await filesystem.open(found.ino, os.O_RDWR | os.O_TRUNC, WHO)
    try:
        for at in range(0, len(data), limits.MIB):
            await filesystem.write(handle, at, data[at : at + limits.MIB])
    finally:
        filesystem.release(handle)
    return found.ino


async def put_unnamed(filesystem: FileSystem, data: bytes, directory: int = ROOT_INO) -> int:
    """A handle on a file without a name, of this content."""
    handle = await filesystem.create_unnamed(directory, WHO)
    for at in range(0, len(data), limits.MIB):
        await filesystem.write(handle, at, data[at : at + limits.MIB])
    return handle


async def get(filesystem: FileSystem, name: bytes, parent: int = ROOT_INO) -> bytes | None:
    """The content of a file; None when there is none."""
    found = filesystem.lookup(parent, name)
    return None if found is None else await content(filesystem, found.ino)


async def content(filesystem: FileSystem, ino: int) -> bytes:
    """All bytes of a file, read as a mount reads them: what is at hand first."""
    handle = await filesystem.open(ino, os.O_RDONLY, WHO)
    try:
        parts: list[bytes] = []
        at = 0
        while True:
            part = filesystem.read_nowait(handle, at, limits.MIB)
            if part is None:
                part = await filesystem.read(handle, at, limits.MIB)
            if not part:
                return b"".join(parts)
            parts.append(bytes(part))
            at += len(part)
    finally:
        filesystem.release(handle)


async def remove(filesystem: FileSystem, name: bytes, parent: int = ROOT_INO) -> None:
    """Unlink, and forget as the kernel does."""
    found = filesystem.lookup(parent, name)
    assert found is not None
    await filesystem.unlink(parent, name)
    filesystem.forget([found.ino])


async def files_of(store: Store) -> dict[bytes, bytes]:
    """Open a store and read every file in its root."""
    async with store.open() as filesystem:
        return await files_in(filesystem)


async def files_in(filesystem: FileSystem) -> dict[bytes, bytes]:
    await trio.lowlevel.checkpoint()
    entries = filesystem.list_directory(ROOT_INO, 0, 1_000_000)
    return {name: await content(filesystem, ino) for _, name, ino, *_ in entries}
