"""What has been written and not yet synced, and the sync that makes it durable.

Every write into a volume puts the volume into the *dirty* set, in the loop step in which the write's end is
learned. A sync takes the whole set when it begins; what is written while it runs is in the next set, even if
the device happens to take it along. One sync runs at a time: a second one that found the set empty must not
return before the first has finished with it.

A drive that raises in a sync, or does not answer within the deadline, is failing, and what was written to that
volume since the sync before counts as lost, even if a late answer says that it arrived: its shards are reported as
damaged; a commit that lost a copy gets another one on another drive. Only if a stripe then has fewer good shards than
it needs, or a commit no copy, has something been lost that somebody may have been told is safe: this sync raises, and
so does every later one, until the store is opened anew.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import outcome
import trio

from ciaosfs.base.errors import CiaosError, DriveGoneError, DriveHangsError
from ciaosfs.base.types import StripeRecord
from ciaosfs.drive.calls import DriveCalls
from ciaosfs.drive.tours import Step, raise_unexpected
from ciaosfs.volume.appending import Appenders
from ciaosfs.volume.driveset import DriveSet
from ciaosfs.volume.volume import Hold, Volume

log = logging.getLogger(__name__)

OnDamage = Callable[[int, int, str], None]
"""(stripe id, shard index, reason), in the loop: a shard was found missing or damaged when it was needed."""


@dataclass(slots=True)
class UnsyncedCommit:
    """A commit needle whose copies are written. `again` writes more copies, avoiding the drives of
    `volumes`."""

    sequence: int
    volumes: list[Volume]
    copies_wanted: Callable[[], int]
    again: Callable[[int, Sequence[Volume]], Awaitable[list[Volume]]]


@dataclass(slots=True)
class _Batch:
    """What one sync covers."""

    volumes: dict[Volume, list[tuple[int, int]]] = field(default_factory=dict)
    """Dirty volumes, each with the (stripe id, shard index) of what was written to it."""
    stripes: dict[int, StripeRecord] = field(default_factory=dict)
    commits: list[UnsyncedCommit] = field(default_factory=list)


class Durability:
    """Owns the dirty set. All methods are for the loop."""

    def __init__(
        self, drives: DriveSet, appenders: Appenders, calls: DriveCalls, on_damage: OnDamage
    ) -> None:
        self._drives = drives
        self._appenders = appenders
        self._calls = calls
        self._on_damage = on_damage
        self._batch = _Batch()
        self._turn = trio.Lock()
        self._lost: str | None = None
        self.syncs = 0

    @property
    def dirty_volumes(self) -> int:
        return len(self._batch.volumes)

    def is_dirty(self, drive_number: int) -> bool:
        """Whether a volume on the drive has been written and not synced. Between syncs only, or it may miss some."""
        return any(volume.drive_number == drive_number for volume in self._batch.volumes)

    @asynccontextmanager
    async def between_syncs(self) -> AsyncIterator[None]:
        """No sync runs while the context lasts; who holds it waits for nothing but `Presence`."""
        async with self._turn:
            yield

    def wrote(self, volume: Volume, stripe_id: int | None, shard_index: int) -> None:
        """A write into `volume` has ended, well or badly. `stripe_id` is None for what is no stripe's
        shard."""
        shards = self._batch.volumes.setdefault(volume, [])
        if stripe_id is not None:
            shards.append((stripe_id, shard_index))
        volume.is_dirty = True

    def stripe_written(self, record: StripeRecord) -> None:
        """All shards of a stripe are written; from here on its loss would be a loss."""
        self._batch.stripes[record.stripe_id] = record

    def commit_written(self, commit: UnsyncedCommit) -> None:
        self._batch.commits.append(commit)

    def abandon(self) -> None:
        """The store is closed: what is not synced stays so. Lets the volumes' descriptors go."""
        for volume in self._batch.volumes:
            volume.is_dirty = False
            volume.close_if_done()
        self._batch = _Batch()

    async def sync(self) -> None:
        """Make everything durable whose write had ended when this was called.

        Runs to its end once begun, whatever is cancelled. Raises DriveGoneError when something is lost.
        """
        with trio.CancelScope(shield=True):
            async with self._turn:
                await self._sync()
        if self._lost is not None:
            raise DriveGoneError(self._lost)

    async def _sync(self) -> None:
        lost: dict[int, set[int]] = {}
        stripes: dict[int, StripeRecord] = {}
        while True:
            batch, self._batch = self._batch, _Batch()
            stripes |= batch.stripes
            try:
                failed = await self._sync_volumes(list(batch.volumes))
            except BaseException:
                self._take_back(batch)
                raise
            for volume in failed:
                for stripe_id, shard_index in batch.volumes[volume]:
                    lost.setdefault(stripe_id, set()).add(shard_index)
            if not failed or not await self._copy_commits(batch.commits):
                break
        self.syncs += 1
        for stripe_id, indexes in lost.items():
            # A stripe that is still being written finds out by itself: see `Volume.is_sync_failed`.
            record = stripes.get(stripe_id) or self._batch.stripes.get(stripe_id)
            if record is not None:
                self._judge(record, indexes)

    async def _sync_volumes(self, volumes: Sequence[Volume]) -> list[Volume]:
        """Sync, devices in parallel; returns those whose sync failed, their drives marked and their volumes
        retired.

        Volumes of one device are synced by one thread, in turn: the first sync brings most of the others
        along (on a journalling file system they share its journal), and thread hops cost more than what is
        left.
        """
        errors: dict[Volume, BaseException] = {}
        holds = {volume: Hold(volume) for volume in volumes}

        async def sync_device(together: Sequence[Volume]) -> None:
            """A drive that hangs is given up, and the others of its device are synced by another thread."""
            results = await self._calls.tour(
                [Step(volume.drive_number, volume.file.sync, holds[volume].let_go) for volume in together]
            )
            raise_unexpected(results)
            for volume, result in zip(together, results, strict=True):
                if isinstance(result, outcome.Error):
                    errors[volume] = result.error

        by_device: dict[int, list[Volume]] = {}
        for volume in volumes:
            by_device.setdefault(self._drives.slots[volume.drive_number].device, []).append(volume)
        groups = list(by_device.values())
        try:
            if len(groups) == 1:
                await sync_device(groups[0])
            elif groups:
                async with trio.open_nursery() as nursery:
                    for group in groups:
                        nursery.start_soon(sync_device, group)
        finally:
            for hold in holds.values():
                hold.let_go()
        for volume in volumes:
            volume.is_dirty = volume in self._batch.volumes
            if volume in errors:
                volume.is_sync_failed = True
                if not isinstance(errors[volume], DriveHangsError):  # else it is set aside already
                    self._drives.slots[volume.drive_number].failed(f"a sync failed: {errors[volume]}")
                self._appenders.retire(volume.drive_number)
            volume.close_if_done()
        return list(errors)

    async def _copy_commits(self, commits: Sequence[UnsyncedCommit]) -> bool:
        """Give commits that lost copies new ones. True when any was written, and another round must sync
        it."""
        written = False
        for commit in commits:
            good = [volume for volume in commit.volumes if not volume.is_sync_failed]
            short = commit.copies_wanted() - len(good)
            if short <= 0:
                continue
            try:
                more = await commit.again(short, good)
            except CiaosError as error:
                log.error("commit %d has %d copies only: %s", commit.sequence, len(good), error)
                more = []
            commit.volumes = good + more
            if more:
                self._batch.commits.append(commit)
                written = True
            elif not good:
                self._lose(f"No drive holds commit {commit.sequence}: all that had a copy failed.")
        return written

    def _judge(self, record: StripeRecord, indexes: set[int]) -> None:
        for shard_index in sorted(indexes):
            self._on_damage(record.stripe_id, shard_index, "its drive failed while it was synced")
        good = sum(place.shard_index not in indexes for place in record.places)
        if good < record.data_count:
            self._lose(
                f"Stripe {record.stripe_id} is lost: its drives failed before it was synced "
                f"({good} of the {record.data_count} shards it needs are left)."
            )

    def _lose(self, sentence: str) -> None:
        log.error("%s", sentence)
        if self._lost is None:
            self._lost = sentence

    def _take_back(self, batch: _Batch) -> None:
        """Our bug broke a sync off: nothing of it counts as synced."""
        for volume, shards in batch.volumes.items():
            self._batch.volumes.setdefault(volume, []).extend(shards)
            volume.is_dirty = True
        self._batch.stripes |= batch.stripes
        self._batch.commits.extend(batch.commits)
