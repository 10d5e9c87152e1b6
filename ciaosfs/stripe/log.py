"""The commit log: commit and image root needles on m+1 drives, and finding them again.

Each copy is a needle of its own, in the log volume of another drive. A commit counts when one copy is whole,
and survives the loss of m drives when all are synced.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ciaosfs.base.errors import CiaosError, ShardDamagedError
from ciaosfs.base.types import Buffer, VolumeKind
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.stripe.choosing import Chooser
from ciaosfs.stripe.durability import Durability, UnsyncedCommit
from ciaosfs.stripe.layout import Shape
from ciaosfs.stripe.spreading import NeedleSpec, Shard, Spreader, Written
from ciaosfs.volume.appending import Appenders
from ciaosfs.volume.driveset import DriveSet
from ciaosfs.volume.files import VolumeFiles
from ciaosfs.volume.scan import read_payload, scan_needles
from ciaosfs.volume.volume import Volume

log = logging.getLogger(__name__)


SETTLED_COMMITS = 100
"""Commits in a row on the same drives after which the log is taken to have left the others."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One whole copy of a commit or image root, found on a drive. `data` was verified."""

    kind: NeedleKind
    sequence: int
    drive_number: int
    volume_id: int
    data: bytes

    def payload(self) -> bytes:
        """What was appended."""
        return self.data


class CommitLog:
    """Appends to and scans the log. `copies` is m+1. All methods are for the loop, except `scan`."""

    def __init__(
        self,
        drives: DriveSet,
        files: VolumeFiles,
        chooser: Chooser,
        spreader: Spreader,
        durability: Durability,
        appenders: Appenders,
        copies: int,
    ) -> None:
        self._drives = drives
        self._files = files
        self._chooser = chooser
        self._spreader = spreader
        self._durability = durability
        self._appenders = appenders
        self._copies = copies
        self._used: set[int] = set()
        self._used_for = 0
        self.appended = 0

    async def append(self, sequence: int, payload: Buffer, kind: NeedleKind) -> None:
        """Write the copies; see ChunkStore.append_commit."""

        async def again(count: int, good: Sequence[Volume]) -> list[Volume]:
            written = await self._append(sequence, payload, kind, count, good)
            return [needle.volume for needle in written]

        written = await self._append(sequence, payload, kind, self._copies, ())
        volumes = [needle.volume for needle in written]
        self._durability.commit_written(UnsyncedCommit(sequence, volumes, self._copies_wanted, again))
        self.appended += 1
        await self._leave_idle_logs({volume.drive_number for volume in volumes})

    async def _leave_idle_logs(self, used: set[int]) -> None:
        """After many commits on the same drives, the log volumes that others have from a past trouble are
        over."""
        if used != self._used:
            self._used = used
            self._used_for = 0
        self._used_for += 1
        if self._used_for == SETTLED_COMMITS:
            await self._appenders.seal_logs_except(used)

    async def _append(
        self, sequence: int, payload: Buffer, kind: NeedleKind, count: int, beside: Sequence[Volume]
    ) -> list[Written]:
        shape = Shape(1, count - 1, len(payload), len(payload), VolumeKind.LOG)
        exclude = {volume.drive_number for volume in beside}
        spec = NeedleSpec(kind, sequence, None, shape)
        load = _Copies(payload, count)
        return await self._spreader.spread(spec, load, self._chooser.for_log, exclude, exclude)

    def _copies_wanted(self) -> int:
        return max(1, min(self._copies, len(self._drives.usable())))

    def scan(self, volume_id_min: int, sequence_min: int = 0) -> Iterator[LogEntry]:
        """See ChunkStore.scan_log. Blocking."""
        for slot in self._drives.present():
            for volume_id in self._files.on_drive(slot.number):
                if volume_id < volume_id_min:
                    break  # newest first
                yield from self._scan_volume(slot.number, volume_id, sequence_min)

    def _scan_volume(self, drive_number: int, volume_id: int, sequence_min: int) -> Iterator[LogEntry]:
        """One volume; what cannot be read of it is passed over: other drives have copies."""
        try:
            with self._files.reading(volume_id) as (volume, file):
                if volume.superblock is not None and volume.superblock.kind is not VolumeKind.LOG:
                    return
                for head in scan_needles(file, self._files.store_id, volume_id):
                    if head.kind is NeedleKind.SHARD or head.stripe_id < sequence_min:
                        continue
                    try:
                        data = read_payload(file, head)
                    except ShardDamagedError as error:
                        log.info("commit %d is torn on drive %d: %s", head.stripe_id, drive_number, error)
                        continue
                    yield LogEntry(head.kind, head.stripe_id, drive_number, volume_id, data)
        except (CiaosError, OSError) as error:
            log.warning("log volume %016x on drive %d: %s", volume_id, drive_number, error)


class _Copies:
    """The same payload for each drive."""

    def __init__(self, payload: Buffer, count: int) -> None:
        self._shards = [[payload]] * count

    def shards(self) -> Sequence[Shard]:
        return self._shards
