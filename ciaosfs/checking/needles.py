"""Is every shard that something depends on where the metadata says, and the one it says? With `data`: are its bytes?

One volume at a time, each at a moment of its own, so that a check of hours holds back no checkpoint. On a mounted
store a stripe may die, or a shard move, between the moment and the look: what seems bad is looked at again at a
later moment, and counts only if the metadata still wants it in that place.
"""

from __future__ import annotations

from collections.abc import Iterable

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError, DriveGoneError, ShardDamagedError
from ciaosfs.base.types import Buffer
from ciaosfs.checking.findings import Findings, Progress
from ciaosfs.checking.source import Source
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.codec.superblock import decode_superblock
from ciaosfs.drive.interface import DriveFile
from ciaosfs.drive.local import volume_name
from ciaosfs.meta.losses import lost_stripes
from ciaosfs.meta.placements import (
    Placement,
    VolumeOfShards,
    count_placements,
    placement_of,
    placements_in,
    volumes_of_shards,
)
from ciaosfs.volume.files import VolumeFiles
from ciaosfs.volume.reader import read_head, read_range


class NeedleCheck:
    """One run over all volumes, in a worker thread."""

    def __init__(self, source: Source, findings: Findings, progress: Progress, *, data: bool) -> None:
        self._reader = source.reader
        self._chunks = source.chunks
        self._files = source.chunks.files
        self._store_id = source.store_id
        self._torn = source.torn_stripes
        self._findings = findings
        self._progress = progress
        self._data = data
        self._bad: set[tuple[int, int]] = set()
        self._gone: set[int] = set()
        self._away_shards = 0
        self._away_drives: set[int] = set()

    def run(self) -> None:
        """Everything; what is wrong goes to the findings."""
        with self._reader() as reader:
            shards, shard_bytes = count_placements(reader)
            volumes = volumes_of_shards(reader)
        if self._data:
            self._progress.begin("reading every shard", shard_bytes, "bytes")
        else:
            self._progress.begin("looking for every shard", shards, "shards")
        for volume in volumes:
            self._check_volume(volume)
        self._progress.begin("counting what is lost")
        with self._reader() as reader:
            for lost in lost_stripes(reader, self._gone, (), self._bad):
                self._findings.problem(
                    f"Stripe {lost.stripe_id} cannot be read any more: {lost.lost_count} of its "
                    f"{lost.data_count + lost.parity_count} shards are missing or damaged."
                )
        if self._away_shards:
            drives = ", ".join(map(str, sorted(self._away_drives)))
            self._findings.note(f"{self._away_shards} shards were not looked at: drive {drives} is away.")

    def _check_volume(self, volume: VolumeOfShards) -> None:
        if volume.drive is None:
            return  # the metadata contradicts itself, and says so where its invariants are checked
        if not self._chunks.is_there(volume.drive):
            self._away(volume.drive, volume.shards)
            return
        suspects: list[Placement] = []
        try:
            with self._reader() as reader, _Opened(self._files, volume.volume_id) as file:
                head = file.read(0, limits.VOLUME_SUPERBLOCK_BYTES)
                for shard in placements_in(reader, volume.volume_id):
                    if self._trouble(file, shard) is not None:
                        suspects.append(shard)
                    self._progress.advance(shard.shard_bytes if self._data else 1)
        except (DriveGoneError, OSError) as error:
            self._volume_fails(volume, error)
            return
        if self._is_wanted(volume.volume_id):
            self._check_superblock(head, volume)
        self._look_again(suspects)

    def _check_superblock(self, head: Buffer, volume: VolumeOfShards) -> None:
        """A damaged one is a note: a power cut may tear it, and every needle says itself whose it is."""
        name = f"Volume {volume.volume_id:016x} on drive {volume.drive}"
        try:
            superblock = decode_superblock(head, store_id=self._store_id, volume_id=volume.volume_id)
        except ShardDamagedError as error:
            self._findings.note(f"{name} has a damaged superblock, which nothing depends on: {error}.")
            return
        if superblock.drive_number != volume.drive:
            self._findings.problem(f"{name} was made for drive {superblock.drive_number}.")
        elif superblock.kind != volume.kind:
            self._findings.problem(
                f"{name} is of kind {superblock.kind:d}, and the metadata says {volume.kind}."
            )

    def _trouble(self, file: DriveFile, shard: Placement) -> str | None:
        """What is wrong with a shard; None when nothing is. OSError and DriveGoneError are not the shard's."""
        try:
            head = read_head(
                file,
                self._store_id,
                shard.volume_id,
                shard.offset,
                shard.shard_bytes,
                kind=NeedleKind.SHARD,
                stripe_id=shard.stripe_id,
                shard_index=shard.shard_index,
            )
            told = (head.stripe_kind, head.data_count, head.parity_count, head.payload_bytes)
            wanted = (shard.kind, shard.data_count, shard.parity_count, shard.payload_bytes)
            if told != wanted:
                return (
                    f"the needle at byte {shard.offset} of volume {shard.volume_id:016x} is of another form"
                )
            if self._data and shard.shard_bytes:
                read_range(file, head, 0, shard.shard_bytes)
        except ShardDamagedError as error:
            return str(error).rstrip(".")
        return None

    def _look_again(self, suspects: Iterable[Placement]) -> None:
        for suspect in suspects:
            with self._reader() as reader:
                shard = placement_of(reader, suspect.stripe_id, suspect.shard_index)
            if (
                suspect.stripe_id in self._torn
                or shard is None
                or (shard.volume_id, shard.offset) != (suspect.volume_id, suspect.offset)
            ):
                continue  # the next mount writes it anew, or it died or moved meanwhile
            try:
                with _Opened(self._files, shard.volume_id) as file:
                    trouble = self._trouble(file, shard)
            except (DriveGoneError, OSError) as error:
                trouble = str(error).rstrip(".")
            if trouble is not None:
                self._findings.problem(
                    f"Shard {shard.shard_index} of stripe {shard.stripe_id} on drive {shard.drive} is damaged: {trouble}."
                )
                if len(self._bad) < limits.CHECK_BAD_SHARDS_MAX:
                    self._bad.add((shard.stripe_id, shard.shard_index))

    def _volume_fails(self, volume: VolumeOfShards, error: CiaosError | OSError) -> None:
        """A volume cannot be opened or read: its drive has left, or it is gone, or it has no shards any more."""
        assert volume.drive is not None
        shards = self._is_wanted(volume.volume_id)
        if not shards:
            return
        if not self._chunks.is_there(volume.drive):
            self._away(volume.drive, shards)
            return
        self._gone.add(volume.volume_id)
        is_missing = isinstance(error, DriveGoneError | FileNotFoundError)
        reason = "is not there" if is_missing else f"cannot be read ({error})"
        self._findings.problem(
            f"Volume {volume.volume_id:016x} on drive {volume.drive} {reason}: {shards} shards are lost with it."
        )

    def _is_wanted(self, volume_id: int) -> int:
        """How many shards that something depends on are in the volume now."""
        with self._reader() as reader:
            return sum(1 for _ in placements_in(reader, volume_id))

    def _away(self, drive: int, shards: int) -> None:
        self._away_shards += shards
        self._away_drives.add(drive)
        self._progress.advance(0 if self._data else shards)


class _Opened:
    """A descriptor of its own for one volume: thousands of volumes are looked at, one after the other."""

    def __init__(self, files: VolumeFiles, volume_id: int) -> None:
        """Raises DriveGoneError when no drive that is there has the volume, and as `Drive.open`."""
        volume = files.get(volume_id)
        if volume is None:
            raise DriveGoneError(f"Volume {volume_id:016x} is on no drive that is there.")
        self._file = volume.drive.open(volume_name(volume_id))

    def __enter__(self) -> DriveFile:
        return self._file

    def __exit__(self, *_: object) -> None:
        self._file.close()
