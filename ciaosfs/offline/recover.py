"""Rebuild a store's metadata from its drives, whatever the database holds.

First a new database is made beside the old one, in `meta.recovering`: nothing is changed by that, and it shows up to
which moment the drives lead. Then the two change places. **The commit point** is the rename that puts the new directory
in the place of the old one; a crash before it leaves no database at all for a moment at most, and the next mount then
builds the same one. The old directory is kept.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ciaosfs.base import clock
from ciaosfs.base.clock import IdSource
from ciaosfs.base.config import StoreConfig
from ciaosfs.base.errors import CiaosError, DriveGoneError, LogDamagedError
from ciaosfs.drive.local import open_drive
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.boot import META_NAME, boot_path, database_path, is_same_boot
from ciaosfs.fs.recovery import recover
from ciaosfs.meta import integrity
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.state import State
from ciaosfs.stripe.arriving import open_drives
from ciaosfs.stripe.store import ChunkStore, DriveState
from ciaosfs.volume.driveset import DriveOpener

RECOVERING_NAME = "meta.recovering"
REPLACED_NAME = "meta.replaced-{time}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the drives lead up to (`state`), and what the database is at now: a commit, or why that is not known.

    `notes` is what recovery had to do, `problems` what is wrong with the metadata that the drives give.
    """

    state: State
    database_state: State | None
    database_trouble: str
    notes: tuple[str, ...]
    problems: tuple[str, ...]


@asynccontextmanager
async def rebuilt(
    config: StoreConfig, workers: Workers, *, opener: DriveOpener = open_drive
) -> AsyncIterator[Plan]:
    """Rebuild the metadata beside the old, of the store in `config`, which the caller has locked.

    Inside, `install` may put it in place; without that, leaving removes it. LogDamagedError when the drives hold no
    commits, or not all of them; DriveGoneError when the database knows later ones that may be on drives that are away.
    """
    directory = config.path / RECOVERING_NAME
    await workers.run(_make_empty, directory)
    try:
        yield await _rebuild(config, workers, directory, opener)
    finally:
        await workers.run(shutil.rmtree, directory, True)


async def _rebuild(config: StoreConfig, workers: Workers, directory: Path, opener: DriveOpener) -> Plan:
    database = database_path(config.path)
    old, trouble = await workers.run(_state_of, database, config.store_id)
    drives = await open_drives(config, workers, opener)
    chunks = ChunkStore(drives, config.store_id, config.data_count, config.parity_count, IdSource(0), workers)
    async with chunks:
        recovered = await recover(
            directory / database.name,
            config.store_id,
            chunks,
            workers,
            is_same_boot=is_same_boot(boot_path(config.path)),
        )
        meta = recovered.meta
        try:
            state = meta.state.load()
            absent = [drive.number for drive in chunks.drive_statuses() if drive.state is DriveState.ABSENT]
            _refuse(state, old, absent)
            problems = await workers.run(_problems, meta)
            # All of it into the database file, and synced: from here on the file may be believed.
            await meta.checkpoint_if_due(workers.run, now=True)
        finally:
            await workers.run(meta.close)
    await workers.run(_sync_directory, directory)
    return Plan(state, old, trouble, recovered.reports, problems)


def install(config: StoreConfig) -> Path | None:
    """Put what `rebuilt` made in the place of the old metadata; returns where that is kept, None without any. Blocking."""
    store = config.path
    kept: Path | None = None
    if (store / META_NAME).exists():
        kept = _free_name(store)
        (store / META_NAME).rename(kept)
    (store / RECOVERING_NAME).rename(store / META_NAME)
    _sync_directory(store)
    return kept


def _refuse(state: State, old: State | None, absent: list[int]) -> None:
    """Raise rather than give up what is known and may come back."""
    if state.sequence == 0:
        raise LogDamagedError("The drives hold no commits: there is nothing to recover from.")
    if old is not None and absent and (old.epoch, old.sequence) > (state.epoch, state.sequence):
        raise DriveGoneError(
            f"The database is at commit {old.sequence}, and the drives that are there lead up to commit "
            f"{state.sequence} only: connect drive {', '.join(map(str, absent))} first."
        )


def _state_of(database: Path, store_id: bytes) -> tuple[State | None, str]:
    """The commit the old database is at, or None and why that is not known. Changes nothing but its index of the WAL."""
    if not database.exists():
        return None, "missing"
    try:
        meta = Metadata.open(database)
    except CiaosError as error:
        return None, error.message
    state = meta.state.load()
    meta.close()
    if state.store_id != store_id:
        return None, "of another store"
    return state, ""


def _problems(meta: Metadata) -> tuple[str, ...]:
    with meta.reader() as reader:
        return tuple(integrity.check(reader))


def _make_empty(directory: Path) -> None:
    """Remove what an earlier attempt left."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)


def _free_name(store: Path) -> Path:
    moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime(clock.now_ns() // 1_000_000_000))
    name = REPLACED_NAME.format(time=moment)
    number = 1
    while (store / name).exists():
        number += 1
        name = f"{REPLACED_NAME.format(time=moment)}-{number}"
    return store / name


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
