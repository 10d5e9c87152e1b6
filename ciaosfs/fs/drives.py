"""Drives are added, begin to be removed, and are let go, while the store is mounted.

Each is a few steps in a fixed order, so that whatever a crash leaves can be told and brought to an end:

- *add*: identity file, configuration, rows of the metadata, and the drive is written to. The configuration decides. A
  directory that has an identity nobody knows of may be added again.
- *removal* begins with a row that says the drive is draining; the job in jobs/drain.py empties it.
- *let go*, when nothing refers to the drive in a durable commit, and an image has made its part of the log superfluous:
  configuration, rows, and then what lies on it is deleted.

`drivesync.py` heals the halves when the store is opened. A drive that replaces another one says so in the configuration,
so that adding it and draining the other are one step.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import trio

from ciaosfs.base import clock, limits
from ciaosfs.base.config import DriveConfig, DriveLabels, StoreConfig, format_drive, load_config
from ciaosfs.base.configedit import add_drive, change_config, remove_drive
from ciaosfs.base.crashpoints import reach
from ciaosfs.base.errors import CiaosError, NoSpaceError, UsageError
from ciaosfs.base.units import format_bytes
from ciaosfs.drive.identity import DriveIdentity, Shape
from ciaosfs.drive.interface import FreeSpace
from ciaosfs.drive.making import check_place, erase_drive, make_new_drive, space_at
from ciaosfs.fs.drivesync import mark_draining
from ciaosfs.fs.parts import Parts
from ciaosfs.meta import reports
from ciaosfs.meta.volumes import DriveRow, DriveState
from ciaosfs.stripe.store import DriveState as Presence
from ciaosfs.stripe.store import DriveStatus

log = logging.getLogger(__name__)

HEADS_DIVISOR = 64
"""Heads and rounding are counted as this part of what shards have: more than for full stripes."""


class DriveAdministration:
    """The drives of one open store. One change at a time; all methods are for the loop."""

    def __init__(self, config: StoreConfig, parts: Parts) -> None:
        self._store = config.path
        self._store_id = config.store_id
        self._width = config.data_count + config.parity_count
        self._meta = parts.meta
        self._chunks = parts.chunks
        self._gate = parts.gate
        self._committer = parts.committer
        self._imager = parts.imager
        self._workers = parts.workers
        self._turn = trio.Lock()

    # Looking

    def statuses(self) -> list[DriveStatus]:
        """Every drive, by number."""
        return sorted(self._chunks.drive_statuses(), key=lambda drive: drive.number)

    def weakness(self) -> str | None:
        """See ChunkStore.weakness."""
        return self._chunks.weakness()

    def draining(self) -> list[int]:
        """The drives that are being emptied."""
        return [drive.number for drive in self.statuses() if drive.is_draining]

    async def shards_by_drive(self) -> dict[int, tuple[int, int]]:
        """How many shards each drive has and their bytes, as of the last commit; drives without any are left out."""

        def count() -> dict[int, tuple[int, int]]:
            with self._meta.reader() as reader:
                return reports.shards_by_drive(reader)

        return await self._workers.run(count)

    # Changing

    async def add(self, path: Path, labels: DriveLabels = DriveLabels()) -> int:  # noqa: B008 - a frozen value
        """Make the directory `path` a drive and use it at once; returns its number.

        Raises UsageError when it cannot be one, StoreError, OSError; then nothing is changed.
        """
        async with self._turn:
            return await self._add(path, labels, None)

    async def replace(
        self,
        number: int,
        path: Path,
        labels: DriveLabels = DriveLabels(),  # noqa: B008 - a frozen value
    ) -> int:
        """Add `path` as `add` does, and begin to empty drive `number`, which may be absent; returns the new number.

        The new drive may be where the old one was, if that is absent. Raises UsageError, NoSpaceError and so on before
        anything is changed.
        """
        async with self._turn:
            if self._find(number).is_draining:
                raise UsageError(
                    f"Drive {number} is being emptied already: add the new one with 'ciaosfs drive add'."
                )
            await self._check_removal(number, await self._workers.run(space_at, path))
            return await self._add(path, labels, self._find(number))

    async def begin_removal(self, number: int) -> None:
        """Put nothing new on the drive from now on; its shards are for the drain job. Again: nothing.

        UsageError when there is no such drive or the others are too few, NoSpaceError when what is on it has no room on
        them; then nothing is changed.
        """
        async with self._turn:
            if self._find(number).is_draining:
                return
            await self._check_removal(number, None)
            await self._gate.wait_open()
            self._mark_draining(number)
            reach("drain.begun")
            self._committer.demand()

    async def let_go(self, number: int) -> None:
        """The drive is empty: it is no longer one of the store, and what lies on it is deleted. Unknown: nothing.

        CiaosError when shards are on it still, what kept the metadata from being durable, StoreError or OSError when
        the configuration cannot be changed. May be repeated after any of them.
        """
        async with self._turn:
            row = self._meta.volumes.drive(number)
            if row is None:
                return
            await self._committer.sync()
            if self._meta.volumes.is_drive_used(number):
                raise CiaosError(f"Drive {number} still has shards: it is not let go.")
            # Commits of the past may be on it, and on too few others to lose it. From an image on none is needed; what was
            # logged since the drive is draining is elsewhere.
            await self._imager.write()
            reach("drain.emptied")
            # Each step leaves what another attempt can begin from; none is left half done for a cancellation.
            with trio.CancelScope(shield=True):
                await self._let_go(row)

    # Inside

    async def _add(self, path: Path, labels: DriveLabels, old: DriveStatus | None) -> int:
        config = await self._workers.run(load_config, self._store)
        if len(config.drives) >= limits.DRIVES_MAX:
            raise UsageError(f"The store has {limits.DRIVES_MAX} drives, the most there can be: replace one.")
        others = [
            drive.path
            for drive in config.drives
            if old is None or drive.number != old.number or old.state is not Presence.ABSENT
        ]
        await self._workers.run(check_place, path, self._store, others)
        number = max(config.next_drive, self._meta.volumes.highest_drive() + 1)
        replaces = None if old is None else old.number
        new = DriveConfig(number, os.urandom(16), path, labels, replaces)
        format_drive(self._store, new)  # refused before anything is made when it cannot be written down
        shape = Shape(config.data_count, config.parity_count)
        identity = DriveIdentity(self._store_id, new.uuid, number, shape)
        known = {drive.uuid for drive in config.drives} | {row.uuid for row in self._meta.volumes.drives()}
        kind = "add" if old is None else "replace"
        with trio.CancelScope(shield=True):
            await self._workers.run(make_new_drive, path, identity, known)
            reach(f"{kind}.made")
            try:
                await self._workers.run(change_config, self._store, add_drive(new))
            except (CiaosError, OSError):
                await self._erase(path, identity)
                raise
            reach(f"{kind}.listed")
            await self._gate.wait_open()
            row = DriveRow(number, new.uuid, DriveState.ACTIVE, clock.now_ns())
            self._meta.volumes.put_drive(row)
            if old is not None:
                self._mark_draining(old.number)
            await self._chunks.add_drive(new)
            reach(f"{kind}.joined")
        log.info("drive %d at %s was added", number, path)
        self._committer.demand()
        return number

    def _mark_draining(self, number: int) -> None:
        mark_draining(self._meta.volumes, number)
        self._chunks.set_draining(number, True)

    async def _let_go(self, row: DriveRow) -> None:
        number = row.number
        config = await self._workers.run(load_config, self._store)
        listed = next((drive for drive in config.drives if drive.number == number), None)
        await self._chunks.drop_drive(number)
        await self._committer.sync()
        if self._meta.volumes.is_drive_used(number):
            # While others were too few, something went to it in the last moment.
            if listed is not None:
                await self._chunks.add_drive(listed)
                self._chunks.set_draining(number, True)
            raise CiaosError(f"Drive {number} has new shards: it is not let go yet.")
        await self._workers.run(change_config, self._store, remove_drive(number))
        reach("drain.unlisted")
        await self._gate.wait_open()
        self._committer.forget_drive(number)
        self._meta.volumes.delete_on_drive(number)
        self._meta.volumes.delete_drive(number)
        reach("drain.forgotten")
        await self._committer.sync()
        if listed is not None:
            await self._erase(listed.path, DriveIdentity(self._store_id, row.uuid, number))
        reach("drain.erased")
        log.info("drive %d was let go", number)

    async def _erase(self, path: Path, identity: DriveIdentity) -> None:
        try:
            await self._workers.run(erase_drive, path, identity)
        except (CiaosError, OSError) as error:
            log.info("what lies on drive %d at %s stays: %s", identity.number, path, error)

    def _find(self, number: int) -> DriveStatus:
        for drive in self._chunks.drive_statuses():
            if drive.number == number:
                return drive
        raise UsageError(f"There is no drive {number}: 'ciaosfs drive list' shows those there are.")

    async def _check_removal(self, number: int, joining: FreeSpace | None) -> None:
        """That the other drives, and one that joins them, can take over what is on this one."""
        await self._chunks.refresh_drives()
        others = [drive for drive in self._chunks.drive_statuses() if drive.number != number]
        staying = [drive for drive in others if not drive.is_draining]
        there = [drive for drive in staying if drive.state in (Presence.ONLINE, Presence.FULL)]
        count = len(there) + (joining is not None)
        if count < self._width:
            away = ", ".join(str(drive.number) for drive in staying if drive not in there)
            raise UsageError(
                f"Without drive {number} there are {count} drives and a stripe needs {self._width}: "
                + (f"connect drive {away}, or " if away else "")
                + "add a drive first, or replace this one."
            )
        beside = await self._workers.run(self._bytes_beside, number)
        on_it = beside.get(number, 0)
        on_it += on_it // HEADS_DIVISOR
        # A shard may go to any drive that has none of its stripe.
        rooms = self._chunks.rooms_without(number, on_it, joining)
        room = sum(min(room, on_it - beside.get(other, 0)) for other, room in rooms.items())
        if on_it > room:
            raise NoSpaceError(
                f"Drive {number} holds {format_bytes(on_it)} and the others have room for {format_bytes(room)} of it: "
                "add a drive first."
            )

    def _bytes_beside(self, number: int) -> dict[int, int]:
        with self._meta.reader() as reader:
            return reports.bytes_beside(reader, number)
