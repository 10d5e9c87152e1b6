"""Does every commit that recovery may need lie on as many drives as it should? The scrub's part of the log.

Every copy since the newest image is read and verified. A commit of the present history with too few whole copies gets
new ones, at the end of the log; when there are many of them, or one has no copy left at all, an image is asked for:
from then on none of them is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from ciaosfs.base import limits
from ciaosfs.base.errors import LogDamagedError
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.fs.parts import Parts
from ciaosfs.jobs.job import Progress
from ciaosfs.meta.commitlog import CommitRecord, decode_commit
from ciaosfs.stripe.store import LogEntry

log = logging.getLogger(__name__)

BATCH_ENTRIES = 256
BATCH_BYTES = 8 * limits.MIB
COPIED_COMMITS_MAX = 32
"""More than this many commits, or larger ones, are not copied: an image takes their place."""
COPIED_BYTES_MAX = 32 * limits.MIB


@dataclass(slots=True)
class _Found:
    """One commit as the drives have it."""

    sequence: int
    parent_id: int
    bytes: int
    drives: set[int] = field(default_factory=set)


class LogCheck:
    """One run. `copied` and `is_image_asked` tell what was done."""

    def __init__(self, parts: Parts, share: float | None) -> None:
        self._parts = parts
        self._share = share
        self.commits = 0
        self.lacking = 0
        self.copied = 0
        self.is_image_asked = False

    async def run(self, progress: Progress) -> None:
        """Read, count, and put right. Raises as ChunkStore.append_commit and ChunkStore.sync."""
        await self._parts.gate.wait_open()  # a commit that is being cut has no needles yet
        state = self._parts.meta.state.load()
        images = self._parts.meta.images.all()
        begin, volume_min = (images[0].sequence, images[0].log_volume_min) if images else (0, 0)
        if state.sequence <= begin:
            return
        found, root_drives = await self._read(progress, volume_min, begin)
        if images and self._lacks_copies(root_drives):
            self._ask_for_image(f"the image of commit {begin} is on fewer drives than it should be")
            return
        chain: dict[int, _Found] = {}
        commit_id, sequence = state.commit_id, state.sequence
        while sequence > begin:
            step = found.get(commit_id)
            if step is None:
                self._ask_for_image(f"commit {sequence} is on none of the drives that are there")
                return
            chain[commit_id] = step
            commit_id, sequence = step.parent_id, sequence - 1
        self.commits = len(chain)
        lacking = {commit_id: step for commit_id, step in chain.items() if self._lacks_copies(step.drives)}
        self.lacking = len(lacking)
        if not lacking:
            return
        if len(lacking) > COPIED_COMMITS_MAX or sum(s.bytes for s in lacking.values()) > COPIED_BYTES_MAX:
            self._ask_for_image(f"{len(lacking)} commits are on fewer drives than they should be")
            return
        await self._copy(set(lacking), volume_min, begin)

    def _lacks_copies(self, holders: set[int]) -> bool:
        """Copies on drives that are away may be as good as ever."""
        drives = self._parts.chunks.drive_statuses()
        away = sum(not self._parts.chunks.is_there(drive.number) for drive in drives)
        return len(holders) + away < min(self._parts.chunks.commit_copies, len(drives))

    def _ask_for_image(self, reason: str) -> None:
        log.warning("an image of the metadata is written, because %s", reason)
        self.is_image_asked = True
        self._parts.imager.demand()

    async def _read(
        self, progress: Progress, volume_min: int, begin: int
    ) -> tuple[dict[int, _Found], set[int]]:
        """Every commit from `begin` on, with the drives that have a whole copy; and those that have the image's root."""
        found: dict[int, _Found] = {}
        root_drives: set[int] = set()
        entries = self._parts.chunks.scan_log(volume_min, begin)
        while batch := await self._parts.workers.run(_next_batch, entries):
            for entry in batch:
                if entry.kind is NeedleKind.IMAGE_ROOT and entry.sequence == begin:
                    root_drives.add(entry.drive_number)
                record = _decoded(entry)
                if record is not None:
                    step = found.setdefault(
                        record.commit_id, _Found(record.sequence, record.parent_id, len(entry.data))
                    )
                    step.drives.add(entry.drive_number)
            await progress.rest(self._share)
        return found, root_drives

    async def _copy(self, wanted: set[int], volume_min: int, begin: int) -> None:
        """Append these commits once more, and sync them."""
        entries = self._parts.chunks.scan_log(volume_min, begin + 1)
        while wanted and (batch := await self._parts.workers.run(_next_batch, entries)):
            for entry in batch:
                record = _decoded(entry)
                if record is not None and record.commit_id in wanted:
                    wanted.discard(record.commit_id)
                    await self._parts.chunks.append_commit(entry.sequence, entry.data)
                    self.copied += 1
        await self._parts.chunks.sync()
        log.warning("%d commits were on fewer drives than they should be and were written again", self.copied)


def _next_batch(entries: Iterator[LogEntry]) -> list[LogEntry]:
    """Blocking. The next copies, verified; nothing at the end."""
    batch: list[LogEntry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += len(entry.data)
        if size >= BATCH_BYTES or len(batch) >= BATCH_ENTRIES:
            break
    return batch


def _decoded(entry: LogEntry) -> CommitRecord | None:
    """The commit in a copy; None when it is something else, or contradicts itself."""
    if entry.kind is not NeedleKind.COMMIT:
        return None
    try:
        return decode_commit(entry.data)
    except LogDamagedError as error:
        log.warning("commit %d on drive %d: %s", entry.sequence, entry.drive_number, error)
        return None
