"""The scrub: every needle that something depends on is read from its drive and verified, volume by volume.

What the metadata wants is looked for where it should be, so whatever is wrong is found: a volume that is missing or cut
off, a flipped byte, a needle that is another one. What is found goes to the suspects, which the repair job looks at
again and rebuilds. Beside that, what nothing refers to any more is swept out of the volumes, and the commit log is
counted (`logcheck.py`).

A job of the kind `verify` is the same for one drive, by the needles' heads alone: a drive that was away may have come
back with older content, or without some of it. Its shards count only where the metadata says so, and only if they are
there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from ciaosfs.base import limits
from ciaosfs.base.types import ShardPlace, StripeKind, StripeRecord
from ciaosfs.fs.parts import Parts
from ciaosfs.jobs.job import JobPostponedError, Progress
from ciaosfs.jobs.logcheck import LogCheck
from ciaosfs.jobs.repair import is_volume_lost
from ciaosfs.jobs.suspects import Suspects
from ciaosfs.jobs.sweep import Sweeper
from ciaosfs.meta.placements import (
    Placement,
    VolumeOfShards,
    count_placements,
    placements_in,
    volumes_of_shards,
)
from ciaosfs.stripe.layout import place_of
from ciaosfs.stripe.verifying import Condition, Finding

log = logging.getLogger(__name__)

SLICE_BYTES = 4 * limits.MIB
"""Verified in one call of a worker thread, between two rests."""
SLICE_SHARDS = 64
AGAIN_S = 5.0
"""Before a drive that left while it was verified is verified from the beginning."""
LOGGED_MAX = 16
"""Damaged shards named in the log by one run; the others are counted."""
SUSPECTS_KEPT_MAX = 256
"""Damaged stripes that the cursor names. They wait for their repair in memory alone, and a restart forgets that."""


@dataclass(slots=True)
class _Cursor:
    """Where a scrub is: volumes below `volume` are done, and this one up to `offset`; and what it has seen so far.

    `suspects` are the stripes of what was damaged, up to SUSPECTS_KEPT_MAX; `are_more`: there were others.
    """

    volume: int = 0
    offset: int = -1
    shards: int = 0
    shard_bytes: int = 0
    damaged: int = 0
    skipped: int = 0
    suspects: list[int] = field(default_factory=list)
    are_more: bool = False


class ScrubJob:
    """Of the whole store, or with `drive` of one. `share` of the time, None for the configured one."""

    def __init__(
        self, parts: Parts, suspects: Suspects, *, drive: int | None = None, share: float | None = None
    ) -> None:
        self._parts = parts
        self._suspects = suspects
        self._drive = drive
        self._with_data = drive is None
        self._share = share
        self._at = _Cursor()

    async def run(self, progress: Progress) -> str:
        """See `job.Job`."""
        if self._drive is not None and not self._await_drive(self._drive):
            return f"Drive {self._drive} is no part of the store any more."
        await self._save_commits()
        if progress.cursor:
            self._go_on(_Cursor(**json.loads(progress.cursor)))
        volumes, total = await self._parts.workers.run(self._survey)
        progress.note(total=total, unit="bytes" if self._with_data else "shards")
        sweeper = Sweeper(self._parts)
        by_id = {volume.volume_id: volume for volume in volumes}
        for volume_id in sorted(by_id.keys() | self._volumes_there()):
            if volume_id >= self._at.volume:
                await self._scrub_volume(volume_id, by_id.get(volume_id), progress)
                await sweeper.sweep(volume_id)
                await progress.rest(self._share)
        await sweeper.give_back()
        if self._drive is not None and self._at.skipped:
            progress.note(done=0, cursor="")
            raise JobPostponedError(
                f"Drive {self._drive} did not answer, or went away, while it was verified.", AGAIN_S
            )
        commits = LogCheck(self._parts, self._share)
        if self._drive is None:
            await commits.run(progress)
        return self._sentence(commits, sweeper)

    async def _save_commits(self) -> None:
        """What is to be verified is looked up in the database, which may lack commits that memory keeps for it.
        JobPostponedError when it cannot take them now."""
        database = self._parts.meta.database
        if database.unsaved_commits():
            await self._parts.committer.commit_anyway()
        if database.unsaved_commits():
            raise JobPostponedError(
                "The metadata database cannot be written, and what it lacks would not be looked at: make space on its file "
                "system."
            )

    def _go_on(self, at: _Cursor) -> None:
        """Where an earlier run was. What it found may never have been repaired, if the daemon died since: it is suspected
        again. A run that did not name all of it (or any: an older version) is no use, and everything is looked at anew."""
        if at.are_more or (at.damaged and not at.suspects):
            return
        self._at = at
        for stripe_id in at.suspects:
            self._suspects.note(stripe_id, 0, "it was found damaged before this")

    def _volumes_there(self) -> set[int]:
        """The volumes on the drives that are there, of the one that is asked for or of all."""
        numbers = [drive.number for drive in self._parts.chunks.drive_statuses()]
        if self._drive is not None:
            numbers = [self._drive]
        return {volume_id for number in numbers for volume_id in self._parts.chunks.files.on_drive(number)}

    def _await_drive(self, number: int) -> bool:
        """Whether the drive belongs to the store. JobPostponedError while it is away."""
        if not any(drive.number == number for drive in self._parts.chunks.drive_statuses()):
            return False
        if not self._parts.chunks.is_there(number):
            raise JobPostponedError(f"Drive {number} is away.")
        return True

    def _survey(self) -> tuple[list[VolumeOfShards], int]:
        """Blocking. The volumes to be scrubbed, lowest id first, and how much is in them."""
        with self._parts.meta.reader() as reader:
            volumes = sorted(volumes_of_shards(reader))
            if self._drive is None:
                return volumes, count_placements(reader)[1]
        own = [volume for volume in volumes if volume.drive == self._drive]
        return own, sum(volume.shards for volume in own)

    def _placements(self, volume_id: int) -> list[Placement]:
        """Blocking. What the metadata wants in a volume, by offset."""
        with self._parts.meta.reader() as reader:
            return list(placements_in(reader, volume_id))

    async def _scrub_volume(self, volume_id: int, volume: VolumeOfShards | None, progress: Progress) -> None:
        """Verify what the metadata wants in a volume; `volume` is None when that is nothing."""
        if volume_id != self._at.volume:
            self._at.volume, self._at.offset = volume_id, -1
        if volume is None:
            return
        if volume.drive is not None and not self._parts.chunks.is_there(volume.drive):
            self._at.skipped += volume.shards
            self._note(progress)
            return
        wanted = await self._parts.workers.run(self._placements, volume.volume_id)
        for part in _slices([shard for shard in wanted if shard.offset > self._at.offset]):
            items = [(_record(shard), _place(shard)) for shard in part]
            found = await self._parts.chunks.verify(items, with_data=self._with_data)
            for shard, finding in zip(part, found, strict=True):
                if finding.condition is not Condition.WHOLE:
                    self._judge(shard, finding)
            self._at.offset = part[-1].offset
            self._at.shards += len(part)
            self._at.shard_bytes += sum(shard.shard_bytes for shard in part)
            self._note(progress)
            await progress.rest(self._share)

    def _judge(self, shard: Placement, finding: Finding) -> None:
        """A shard did not come. It counts if the metadata still wants it there, and its drive is there."""
        record = self._parts.meta.stripes.load(shard.stripe_id)
        if (
            record is None
            or place_of(record, shard.shard_index) != _place(shard)
            or not self._parts.mender.is_live(shard.stripe_id)
        ):
            return
        if finding.condition is Condition.AWAY and not is_volume_lost(self._parts, shard.volume_id):
            self._at.skipped += 1
            return
        self._at.damaged += 1
        if self._at.damaged <= LOGGED_MAX:
            log.warning(
                "shard %d of stripe %d was found damaged: %s",
                shard.shard_index,
                shard.stripe_id,
                finding.reason,
            )
        if shard.stripe_id not in self._at.suspects:
            if len(self._at.suspects) < SUSPECTS_KEPT_MAX:
                self._at.suspects.append(shard.stripe_id)
            else:
                self._at.are_more = True
        self._suspects.note(shard.stripe_id, shard.shard_index, finding.reason)

    def _note(self, progress: Progress) -> None:
        done = self._at.shard_bytes if self._with_data else self._at.shards
        progress.note(done=done, cursor=json.dumps(asdict(self._at)))

    def _sentence(self, commits: LogCheck, sweeper: Sweeper) -> str:
        what = "read" if self._with_data else "looked for"
        parts = [f"{self._at.shards} shards were {what}, {self._at.damaged} were damaged"]
        if self._at.skipped:
            parts.append(f"{self._at.skipped} are on drives that are away or do not answer")
        if commits.lacking:
            parts.append(f"{commits.lacking} commits had lost copies")
        if commits.is_image_asked:
            parts.append("the metadata is written as a new image")
        if sweeper.needles:
            parts.append(f"{sweeper.needles} needles that nothing refers to were given back")
        return "; ".join(parts) + "."


def _slices(shards: Sequence[Placement]) -> list[list[Placement]]:
    """The shards in pieces of about SLICE_BYTES."""
    slices: list[list[Placement]] = []
    room = 0
    for shard in shards:
        if not slices or room < shard.shard_bytes or len(slices[-1]) >= SLICE_SHARDS:
            slices.append([])
            room = SLICE_BYTES
        slices[-1].append(shard)
        room -= shard.shard_bytes
    return slices


def _record(shard: Placement) -> StripeRecord:
    """What the needle must say of its stripe."""
    return StripeRecord(
        shard.stripe_id,
        StripeKind(shard.kind),
        shard.data_count,
        shard.parity_count,
        shard.payload_bytes,
        shard.shard_bytes,
        (),
    )


def _place(shard: Placement) -> ShardPlace:
    return ShardPlace(shard.shard_index, shard.volume_id, shard.offset)
