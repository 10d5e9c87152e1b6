"""Full is not broken: before a writer hears ENOSPC, what has been deleted is given back.

Space of deleted files returns in three steps: half-dead stripes are compacted, a commit makes the old ones dead, and
the discard punches them out. All three happen by themselves in a few seconds; a writer that meets a full store need
not see that delay, so it waits for some rounds of them. When that gained nothing, further writers are told at once
for a while.
"""

from __future__ import annotations

import errno
import logging

import trio

from ciaosfs.base import clock, limits
from ciaosfs.base.errors import CiaosError, FsError
from ciaosfs.fs.commit import Committer
from ciaosfs.fs.compact import Compactor
from ciaosfs.fs.files import Files
from ciaosfs.fs.reclaim import Reclaimer
from ciaosfs.fs.slicing import Slicer
from ciaosfs.stripe.store import ChunkStore

log = logging.getLogger(__name__)

ROUNDS_MAX = 8
COMPACTOR_SHARE = 16
"""On a tiny store the compactor gets this part of it, where a stripe would be more."""
NAME_BYTES = 4 * limits.KIB
"""Room asked for before a new name, link or attribute is made: generous for its part of a commit."""
PAUSE_S = 1.0
"""After a round in vain nobody waits for another one for so long, unless something is deleted."""


class RoomMaker:
    """Answers whether the drives have room, after having made some if need be."""

    def __init__(
        self,
        chunks: ChunkStore,
        files: Files,
        committer: Committer,
        compactor: Compactor,
        reclaimer: Reclaimer,
        slicer: Slicer,
    ) -> None:
        self._chunks = chunks
        self._files = files
        self._committer = committer
        self._compactor = compactor
        self._reclaimer = reclaimer
        self._slicer = slicer
        self._turn = trio.Lock()
        self._in_vain_until_s = 0.0
        self._in_vain_at_bytes = 0

    @property
    def available(self) -> int:
        """Bytes of payload that writers may take, what is pending included.

        One stripe's worth is left to the compactor: on a store that is full to the brim it could copy nothing, and so
        give nothing back.
        """
        space = self._chunks.space()
        return max(0, space.available - min(limits.STRIPE_PAYLOAD_BYTES_MAX, space.total // COMPACTOR_SHARE))

    def has_room(self, length: int) -> bool:
        """Whether `length` more bytes of payload fit beside what is pending. Cheap."""
        return self._files.pending_bytes + length <= self.available

    async def wait_room(self, length: int) -> None:
        """Return when they fit. ENOSPC when nothing that could be given back is left, DriveGoneError when too few drives can
        be written to: then there is no room either, but nothing is full."""
        if self.has_room(length):
            return
        async with self._turn:
            if not self.has_room(length) and self._is_promising():
                await self._make(length)
                if not self.has_room(length):
                    self._in_vain_until_s = clock.monotonic_s() + PAUSE_S
                    self._in_vain_at_bytes = self._reclaimer.allocated_bytes
        if not self.has_room(length):
            self._chunks.check_drives()
            raise FsError(errno.ENOSPC, "The drives are full: delete something or add a drive.")

    def _is_promising(self) -> bool:
        """Whether to try: something was deleted since the last round in vain, or that was long ago."""
        return (
            self._reclaimer.waiting > 0
            or self._reclaimer.allocated_bytes < self._in_vain_at_bytes
            or clock.monotonic_s() >= self._in_vain_until_s
        )

    async def _make(self, length: int) -> None:
        """Rounds of compacting, committing and discarding, until it fits or a round after the first gains nothing."""
        for number in range(ROUNDS_MAX):
            before = self._chunks.space().available
            try:
                await self._slicer.finish()
                worked = await self._compactor.step()
                await self._committer.sync()
                await self._reclaimer.wait_discarded()
                await self._chunks.refresh_drives()
            except CiaosError as error:
                log.info("making room: %s", error)
                return
            # The first round may only have committed the deletes that the next one compacts after.
            is_stuck = not worked and number > 0 and self._chunks.space().available <= before
            if self.has_room(length) or is_stuck:
                return
