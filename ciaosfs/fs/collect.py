"""Volumes that nothing needs any more are deleted: the log before the images, and data volumes without any shard.

A log volume is needed while a commit after the oldest kept image may lie in it, or a shard. A data volume is needed
while it has a shard, is written to, or may be continued. Deletion runs backwards: the row goes with a commit, the file
after its sync. What a crash leaves between the two are files that the metadata does not know; so does a crash between
the making of a volume and the commit that notes it. Both are found again by a later session, get a row, and then are
kept or go by the same rules: a log volume that a crash left without a row may hold the newest commits.

Nothing is collected from the log before two images are kept: the newer one may turn out to be unreadable.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import trio

from ciaosfs.base import limits
from ciaosfs.base.crashpoints import reach
from ciaosfs.base.errors import CiaosError
from ciaosfs.base.types import VolumeKind
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.commit import Committer
from ciaosfs.fs.gate import Gate
from ciaosfs.fs.image import Imager
from ciaosfs.fs.reclaim import Reclaimer
from ciaosfs.meta import leftovers
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.volumes import VolumeRow
from ciaosfs.stripe.store import ChunkStore
from ciaosfs.volume.volume import VolumeState

log = logging.getLogger(__name__)

COLLECT_S = 60.0
"""Between two rounds when no image calls for one."""
LOOK_S = 0.5
"""Between two looks whether an image was finished."""
FIRST_S = 5.0
"""After the opening: what is mounted to be read is read first."""
VOLUMES_STEP_MAX = 64
"""Volumes given up in one step of the open transaction."""


@dataclass(frozen=True, slots=True)
class CollectStatistics:
    """Counts since the store was opened: volumes deleted, and volumes found on the drives alone."""

    volumes_deleted: int
    volumes_adopted: int


class Collector:
    """A background task; `collect` may be called from anywhere in the loop, rounds take turns."""

    def __init__(
        self,
        meta: Metadata,
        chunks: ChunkStore,
        committer: Committer,
        reclaimer: Reclaimer,
        imager: Imager,
        gate: Gate,
        workers: Workers,
    ) -> None:
        self._meta = meta
        self._chunks = chunks
        self._committer = committer
        self._reclaimer = reclaimer
        self._imager = imager
        self._gate = gate
        self._workers = workers
        self._turn = trio.Lock()
        self._hurried = 0
        """How many callers wait for `collect`: then commits are asked for, which a round in the background only awaits."""
        self._deleted = 0
        self._adopted = 0

    def statistics(self) -> CollectStatistics:
        return CollectStatistics(self._deleted, self._adopted)

    async def run(self) -> None:
        """Collect after each image, and now and then, for ever. Trouble with drives is met again in the next round."""
        images = self._imager.images_written
        pause_s = FIRST_S
        while True:
            with trio.move_on_after(pause_s):
                while self._imager.images_written == images:  # noqa: ASYNC110 - both are seldom
                    await trio.sleep(LOOK_S)
            images = self._imager.images_written
            pause_s = COLLECT_S
            try:
                await self._round()
            except (CiaosError, OSError) as error:
                log.info("collecting waits: %s", error)
            except Exception:  # our bug: too much is kept, the mount stays up
                log.exception("collecting failed")

    async def collect(self) -> int:
        """One round at once; returns how many volumes were deleted. Raises what keeps its commits from being durable."""
        self._hurried += 1
        try:
            self._committer.demand()
            return await self._round()
        finally:
            self._hurried -= 1

    async def _round(self) -> int:
        deleted = 0
        async with self._turn:
            await self._adopt()
            after = 0
            while True:
                candidates = await self._workers.run(self._unused, after, self.log_volume_min())
                if not candidates:
                    return deleted
                after = candidates[-1].volume_id
                deleted += await self._delete(candidates)

    async def _durable(self) -> None:
        """What was done to rows is durable, soon or when it may be."""
        await (self._committer.sync() if self._hurried else self._committer.wait_commit())

    async def log_volumes_blocked_by(self, limit: int) -> list[int]:
        """Up to `limit` stripes of files that keep log volumes from being collected: to be packed into data volumes."""

        log_volume_min = self.log_volume_min()

        def look() -> list[int]:
            with self._meta.reader() as reader:
                return leftovers.live_in_log(reader, log_volume_min, limit)

        return await self._workers.run(look)

    def log_volume_min(self) -> int:
        """The log in volumes below this id is not needed: it is older than the oldest kept image."""
        images = self._meta.images.all()
        return images[-1].log_volume_min if len(images) >= limits.IMAGES_KEPT else 0

    def _unused(self, after: int, log_volume_min: int) -> list[VolumeRow]:
        with self._meta.reader() as reader:
            return leftovers.unused_volumes(reader, after, log_volume_min, VOLUMES_STEP_MAX)

    async def _delete(self, candidates: list[VolumeRow]) -> int:
        """Rows, commit, files; of those that are still unused in the open transaction."""
        await self._gate.wait_open()
        unused = [volume for volume in candidates if self._is_unused(volume)]
        if not unused:
            return 0
        for volume in unused:
            self._meta.volumes.delete(volume.volume_id)
        reach("collect.forgotten")
        await self._durable()
        reach("collect.synced")
        deleted = 0
        for volume in unused:
            deleted += await self._chunks.remove_volume(volume.volume_id)
            reach("collect.removed")
        self._deleted += deleted
        log.info("%d volumes without anything that is needed were deleted", deleted)
        return deleted

    def _is_unused(self, volume: VolumeRow) -> bool:
        """No await between this and what relies on it: rows of the open transaction count, and shards without rows."""
        volume_id = volume.volume_id
        return (
            self._meta.volumes.load(volume_id) == volume
            and not self._meta.stripes.in_volume(volume_id, 0, 1)
            and not self._chunks.is_in_use(volume_id)
            and not self._reclaimer.is_giving_back(volume_id)
            and (volume.kind == VolumeKind.DATA or volume_id < self.log_volume_min())
        )

    async def _adopt(self) -> None:
        """Give rows to volumes of earlier sessions that only the drives know, and close those that were left open."""
        former = dict(self._chunks.former_volumes())
        found, left = await self._workers.run(self._look_for_strangers, former)
        if not found and not left:
            return
        for start in range(0, len(found), VOLUMES_STEP_MAX):
            await self._gate.wait_open()
            for volume in found[start : start + VOLUMES_STEP_MAX]:
                if self._meta.volumes.load(volume.volume_id) is None:
                    self._meta.volumes.note(*volume)
                    self._adopted += 1
        await self._gate.wait_open()
        for volume in left:
            if self._meta.volumes.load(volume.volume_id) == volume and not self._chunks.is_in_use(
                volume.volume_id
            ):
                self._meta.volumes.note(*volume._replace(state=VolumeState.SEALED))
        reach("collect.adopted")
        await self._durable()

    def _look_for_strangers(self, former: dict[int, int]) -> tuple[list[VolumeRow], list[VolumeRow]]:
        """Blocking. Volumes without a row, and those that sessions which are over left open."""
        with self._meta.reader() as reader:
            known = leftovers.known_volumes(reader)
            left = leftovers.left_open(reader, self._chunks.session_floor, VOLUMES_STEP_MAX)
        found = []
        for volume_id in sorted(former.keys() - known):
            kind = self._chunks.kind_of(volume_id)
            if kind is not None:
                found.append(VolumeRow(volume_id, former[volume_id], kind, VolumeState.SEALED))
        return found, left
