"""The chunk store: payloads in, verified bytes out, over the drives that are there. The one facade of this
floor.

It wires the parts of this package together and owns them. What each promises when several things happen at
once is in CONCURRENCY.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import outcome
import trio

from ciaosfs.base.clock import IdSource
from ciaosfs.base.config import DriveConfig
from ciaosfs.base.errors import DriveHangsError
from ciaosfs.base.types import Buffer, ShardPlace, Space, StripeKind, StripeRecord, VolumeKind
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.drive.calls import DriveCalls, DriveCallStatistics
from ciaosfs.drive.interface import FreeSpace
from ciaosfs.drive.tours import raise_unexpected
from ciaosfs.drive.workers import Workers
from ciaosfs.stripe.choosing import Chooser
from ciaosfs.stripe.damage import DamageReports
from ciaosfs.stripe.discarding import punch_steps, remove_volume
from ciaosfs.stripe.durability import Durability, OnDamage
from ciaosfs.stripe.fetching import ShardFetcher
from ciaosfs.stripe.listing import list_shards
from ciaosfs.stripe.log import CommitLog, LogEntry
from ciaosfs.stripe.prefetching import Prefetcher
from ciaosfs.stripe.presence import Presence
from ciaosfs.stripe.reader import ReaderStatistics, StripeReader
from ciaosfs.stripe.rebuild import Rebuilder
from ciaosfs.stripe.spreading import Spreader
from ciaosfs.stripe.verifying import Finding, verify_shards
from ciaosfs.stripe.writer import StripeWriter, WriterStatistics
from ciaosfs.volume.appending import Appenders
from ciaosfs.volume.driveset import DriveSet, DriveState, DriveStatus
from ciaosfs.volume.files import VolumeFiles
from ciaosfs.volume.scan import kind_of_volume
from ciaosfs.volume.volume import VolumeState

__all__ = [
    "ChunkStore",
    "ChunkStoreStatistics",
    "DriveSet",
    "DriveState",
    "DriveStatus",
    "LogEntry",
    "OnDamage",
    "OnVolume",
]

DROP_PAUSE_S = 0.01
"""Between two looks whether a drive that is to be dropped is at rest."""

OnVolume = Callable[[int, int, VolumeKind, VolumeState], None]
"""(volume id, drive number, kind, state), in the loop: a volume was made or changed its state."""


@dataclass(frozen=True, slots=True)
class ChunkStoreStatistics:
    """A moment of the store; counts since it was opened."""

    reads: ReaderStatistics
    writes: WriterStatistics
    commits_appended: int
    syncs: int
    volumes_dirty: int
    volumes_known: int
    files_open: int
    calls: DriveCallStatistics


class ChunkStore:
    """See the module. An async context manager; owns the DriveSet from the start, and closes it.

    All methods are for the loop, except `scan_log`. `on_damage` and `on_volume` may be set at
    any time; they are called in the loop and must not raise.
    """

    def __init__(
        self,
        drives: DriveSet,
        store_id: bytes,
        data_count: int,
        parity_count: int,
        ids: IdSource,
        workers: Workers,
    ) -> None:
        assert store_id == drives.store_id
        self.commit_copies = parity_count + 1
        """On how many drives a commit is written when all are there."""
        self.on_damage: OnDamage = lambda stripe_id, shard_index, reason: None
        self.on_volume: OnVolume = lambda volume_id, number, kind, state: None
        drives.width = data_count + parity_count
        self._drives = drives
        self._data_count = data_count
        self._workers = workers
        self._calls = DriveCalls(workers, parity_count, self._can_spare, self._set_aside)
        self._ids = ids
        self._files = VolumeFiles(store_id)
        self._appenders = Appenders(drives, self._files, ids, self._calls, self._tell_volume)
        self._durability = Durability(drives, self._appenders, self._calls, self._tell_damage)
        self._presence = Presence(drives, self._files, self._appenders, ids, self._calls)
        self._chooser = Chooser(drives, self._appenders, data_count, parity_count)
        self._spreader = Spreader(
            drives, self._appenders, self._durability, self._calls, data_count, self._presence.refresh
        )
        self._writer = StripeWriter(
            self._chooser, self._spreader, self._durability, ids, data_count, parity_count
        )
        self._shards = ShardFetcher(self._files)
        damage = DamageReports(self._tell_damage, drives.all_present)
        self.prefetcher = Prefetcher(self._shards, self._calls)
        """Reads ahead for who reads from one end to the other; `read` finds it."""
        self._reader = StripeReader(self._shards, self.prefetcher, workers, self._calls, damage)
        self._rebuilder = Rebuilder(
            drives, self._shards, self._chooser, self._spreader, self._durability, damage, self._calls
        )
        self._log = CommitLog(
            drives,
            self._files,
            self._chooser,
            self._spreader,
            self._durability,
            self._appenders,
            parity_count + 1,
        )

    async def __aenter__(self) -> ChunkStore:
        """DriveGoneError, naming what is absent, when fewer than `data_count` drives are there."""
        try:
            self._spreader.check_drives()
        except BaseException:
            self._drives.close()
            raise
        self._presence.begin()
        self._calls.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close files and drives. Syncs nothing, and no other method may be running."""
        self._calls.close()
        self._appenders.close()
        self._durability.abandon()
        self._files.close()
        self._drives.close()

    def respect(self, known_end: Callable[[int], int]) -> None:
        """Before anything is written: `known_end` tells, blocking, where the last needle ends that the metadata
        knows in a volume. Nothing is written there before it, whether or not its bytes ever arrived.
        """
        self._appenders.known_end = known_end

    async def write_stripe(
        self, pieces: Sequence[Buffer], kind: StripeKind = StripeKind.FILE, *, coded: bool = False
    ) -> StripeRecord:
        """Code and write the concatenation of `pieces` (1 byte to STRIPE_PAYLOAD_BYTES_MAX).

        Written is not synced. The pieces must not change until this returns; those that are exactly a shard
        long are not copied. With drives away the stripe has fewer shards than it should, at least
        `data_count`. Raises NoSpaceError, and DriveGoneError when too few drives can be written to. When
        cancelled, what was written becomes dead space. `coded`: as k+m shards in data volumes, however small.
        """
        self.prefetcher.give_back()
        record, written = await self._writer.write(pieces, kind, coded=coded)
        self._shards.wrote(written)
        return record

    async def rebuild(
        self, record: StripeRecord, shard_indexes: Collection[int], *, avoid: Collection[int] = ()
    ) -> StripeRecord:
        """Write these shards of a stripe anew, onto drives that hold none of its other shards, nor are in `avoid`.

        A shard that is whole where it lies is copied, the others are decoded. Returns the stripe with the places of
        what was written, which may be fewer shards than asked for: nothing refers to them yet. Written is not synced.
        Raises StripeLostError when too few good shards are left, DriveGoneError when they may be on drives that are
        away, or no drive is left to write to, NoSpaceError when those that are left are full.
        The caller keeps the stripe from being discarded meanwhile.
        """
        rebuilt, written = await self._rebuilder.rebuild(record, shard_indexes, avoid)
        self._shards.wrote(written)
        return rebuilt

    async def verify(
        self, items: Sequence[tuple[StripeRecord, ShardPlace]], *, with_data: bool = True
    ) -> list[Finding]:
        """The condition of each of these shards where it lies, read in full; without `with_data` only its head."""
        found = await verify_shards(self._files, self._calls, items, with_data=with_data)
        self._files.trim()
        return found

    async def list_shards(self, volume_id: int) -> list[StripeRecord]:
        """The shards in a volume, by what their heads say, each as its stripe with that one place.

        Stripes whose writing began after this call are left out. Raises DriveGoneError, StoreError, OSError.
        """
        found = await self._workers.run(list_shards, self._files, volume_id, self._ids.next_id)
        self._files.trim()
        return found

    def is_under_way(self, stripe_id: int) -> bool:
        """Whether a stripe is being written, or was written and nobody has called `noted` for it yet."""
        return stripe_id in self._writer.under_way

    def noted(self, stripe_id: int) -> None:
        """A stripe that was written is part of the metadata now."""
        self._writer.under_way.discard(stripe_id)

    def can_place(self, record: StripeRecord, shard_indexes: Collection[int]) -> bool:
        """Whether a drive is there, full or not, that holds none of the stripe's other shards."""
        return self._rebuilder.can_place(record, shard_indexes)

    def read_nowait(self, stripe: StripeRecord, offset: int, length: int) -> Buffer | None:
        """Payload bytes `[offset, offset + length)`, verified, if they are in the page cache; else None.

        Never blocks and never raises: None may also mean that something is wrong, which `read` finds out.
        """
        return self._reader.read_nowait(stripe, offset, length)

    async def read(
        self, stripe: StripeRecord, offset: int, length: int, *, with_neighbours: bool = False
    ) -> Buffer:
        """Payload bytes `[offset, offset + length)`, verified, decoded from other shards if need be.

        The range must lie in the payload. Raises StripeLostError when more shards are damaged than parity
        replaces, DriveGoneError when they may be whole but their drives are absent or fail. `with_neighbours`: what
        lies around the range will probably be read soon, too.
        """
        return await self._reader.read(stripe, offset, length, with_neighbours=with_neighbours)

    async def is_readable(self, stripe: StripeRecord) -> bool:
        """Whether the whole payload can be read and verified now. Reads all of it."""
        return await self._reader.is_readable(stripe)

    async def damaged_shards(self, stripe: StripeRecord) -> list[int]:
        """The shards on drives that are there, parity too, that are not whole. Reads all of them."""
        return await self._reader.damaged_shards(stripe)

    async def advise(self, stripe: StripeRecord) -> None:
        """Ask the drives for the data shards of a stripe that will be read soon, and learn where its blocks
        are. Drives that lag are not asked.

        Never raises: what is wrong is for the read to find.
        """
        steps = self._shards.advice(stripe, lambda number: self._calls.lane(number).is_to_be_avoided)
        await self._calls.tour(steps)

    async def append_commit(self, sequence: int, payload: Buffer, image_root: bool = False) -> None:
        """Append a commit (or image root) to the log volumes of m+1 drives, or as many as are there.

        Written is not synced. On NoSpaceError and DriveGoneError the copies that were written are taken back,
        as far as their drives let us: a crash may still show them to a recovery.
        """
        kind = NeedleKind.IMAGE_ROOT if image_root else NeedleKind.COMMIT
        await self._log.append(sequence, payload, kind)

    async def sync(self) -> None:
        """Make everything durable that was written before this call; what is written meanwhile may be too.

        Drives that fail are marked, and their shards reported through `on_damage`. Raises DriveGoneError when
        so many failed that a stripe or commit is lost; then every later call raises too, until the store is
        opened anew. Runs to its end once begun.
        """
        await self._durability.sync()

    async def discard(self, records: Sequence[StripeRecord]) -> None:
        """Give the space of dead stripes back.

        Call when the commit that made them dead is durable and nothing reads them. Never raises for drives
        that are absent or fail; doing it again does no harm.
        """
        for record in records:
            self._shards.forget(record)
        results = await self._calls.tour(punch_steps(self._files, records))
        raise_unexpected(results)
        if any(isinstance(result, outcome.Value) and result.value for result in results):
            await self._presence.refresh()

    async def remove_volume(self, volume_id: int) -> bool:
        """Delete a volume in which nothing is referred to any more, and no commit is needed.

        False, and nothing is done, when it is in use, or its drive is absent or fails.
        """
        if self.is_in_use(volume_id):
            return False
        volume = self._files.get(volume_id)
        if volume is None:
            return False
        try:
            if not await self._calls.call(volume.drive_number, remove_volume, self._files, volume_id):
                return False
        except DriveHangsError:
            return False
        self._files.forget(volume_id)
        return True

    def landed(self, stripe_id: int) -> None:
        """The metadata knows where the shards of a stripe lie, in the open transaction at least."""
        self._spreader.unlanded.landed(stripe_id)

    def is_in_use(self, volume_id: int) -> bool:
        """Whether a volume is being appended to, or has shards of which the metadata has not been told."""
        return self._appenders.is_current(volume_id) or self._spreader.unlanded.holds(volume_id)

    @property
    def session_floor(self) -> int:
        """Volumes made since the store was opened have higher ids, those of earlier sessions lower ones."""
        return self._appenders.session_floor

    def former_volumes(self) -> list[tuple[int, int]]:
        """(volume id, drive number) of all volumes of earlier sessions on the drives that are there."""
        return [
            (volume_id, slot.number)
            for slot in self._drives.present()
            for volume_id in self._files.on_drive(slot.number)
            if volume_id < self.session_floor
        ]

    def kind_of(self, volume_id: int) -> VolumeKind | None:
        """What a volume is for; None when it cannot be told now. Blocking, for a worker thread."""
        return kind_of_volume(self._files, volume_id)

    def check_drives(self) -> None:
        """DriveGoneError, naming what is absent, when too few drives can be written to, full or not. Cheap."""
        self._spreader.check_drives()

    def space(self) -> Space:
        """Usable space in payload bytes; cheap enough to ask for every write.

        `available` can be placed, whatever stripes it comes in, unless others write to the same file systems.
        """
        return self._chooser.space()

    async def refresh_drives(self) -> list[DriveStatus]:
        """Look which drives are there and measure them; take in those that came back or recovered."""
        await self._presence.refresh()
        return self._drives.statuses()

    def drive_statuses(self) -> list[DriveStatus]:
        """The drives as of the last look, and what has happened since."""
        return self._drives.statuses()

    @property
    def files(self) -> VolumeFiles:
        """The volumes that are there, for whoever reads them as a whole, in a worker thread."""
        return self._files

    def is_there(self, drive_number: int) -> bool:
        """Whether the drive is not absent. For any thread."""
        slot = self._drives.slots.get(drive_number)
        return slot is not None and slot.drive is not None

    def rooms_without(self, number: int, its_bytes: int, joining: FreeSpace | None = None) -> dict[int, int]:
        """Bytes that each other drive could take if drive `number`, with so many bytes on it, were emptied.

        What it holds comes back to those that share its file system. `joining` is one more drive, counted as number -1.
        """
        return self._chooser.rooms_without(number, its_bytes, joining)

    def weakness(self) -> str | None:
        """What the loss of one disk or host would cost, as a sentence; None when every stripe would survive it."""
        return self._chooser.weakness()

    async def add_drive(self, config: DriveConfig) -> None:
        """Take in a drive; it is written to at once, or as soon as it is there."""
        await self._presence.join(config)

    def set_draining(self, number: int, is_draining: bool) -> None:
        """Whether a drive is to be removed: then nothing new goes to it while others are enough, and it is read as ever."""
        self._drives.set_draining(number, is_draining)
        if is_draining:
            self._appenders.retire(number)

    async def drop_drive(self, number: int) -> None:
        """Let go of a drive that nothing refers to any more; what is under way to it ends first.

        Unknown: nothing. Raises DriveGoneError when syncing fails for good.
        """
        if number not in self._drives.slots:
            return
        self.set_draining(number, True)
        while True:
            await self._durability.sync()
            async with self._durability.between_syncs():
                if await self._presence.leave(number, self._durability.is_dirty):
                    return
            await trio.sleep(DROP_PAUSE_S)

    def has_lost_volume(self, volume_id: int, drive_number: int) -> bool:
        """Whether the drive is there and the volume is not on it. For any thread."""
        return self.is_there(drive_number) and self._files.get(volume_id) is None

    def log_volume_min(self) -> int:
        """A commit appended from now on lies in a log volume with this id or a higher one."""
        return self._appenders.log_volume_min()

    async def roll_log(self) -> None:
        """Let commits from now on lie in new log volumes, as far as the present ones are not being written to."""
        await self._appenders.roll_logs()

    def scan_log(self, volume_id_min: int, sequence_min: int = 0) -> Iterator[LogEntry]:
        """Every whole copy of every commit and image root in log volumes from `volume_id_min` on.

        In no order; a commit comes once for each drive that has it, and not at all where a crash tore it.
        What is below `sequence_min` is passed over without reading its payload. Blocking, for a worker
        thread.
        """
        return self._log.scan(volume_id_min, sequence_min)

    def statistics(self) -> ChunkStoreStatistics:
        return ChunkStoreStatistics(
            reads=self._reader.statistics(),
            writes=self._writer.statistics(),
            commits_appended=self._log.appended,
            syncs=self._durability.syncs,
            volumes_dirty=self._durability.dirty_volumes,
            volumes_known=self._files.volume_count,
            files_open=self._files.open_count,
            calls=self._calls.statistics(),
        )

    def _can_spare(self, number: int) -> bool:
        """Whether stripes can still be written when drive `number` is set aside, if it is not already."""
        left = sum(slot.number != number for slot in self._drives.usable())
        return left >= self._data_count

    def _set_aside(self, number: int, reason: str) -> None:
        """A drive does not answer: no more writes to it until it does."""
        self._drives.slots[number].failed(reason)
        self._appenders.retire(number)

    def _tell_damage(self, stripe_id: int, shard_index: int, reason: str) -> None:
        self.on_damage(stripe_id, shard_index, reason)

    def _tell_volume(self, volume_id: int, number: int, kind: VolumeKind, state: VolumeState) -> None:
        self.on_volume(volume_id, number, kind, state)
