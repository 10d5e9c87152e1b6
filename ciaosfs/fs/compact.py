"""Space held by half-dead stripes comes back: what is still live in them is copied into a fresh stripe.

A stripe holds bytes of many small files; deleting some of them frees nothing until the last one goes. The compactor
picks stripes of which little is live and has `merge` copy that. How much of a stripe is live is measured in bytes of
files, before compression.

Together with what the drives' file systems round up, the bound on dead bytes keeps the space used within 1.25 times
(k+m)/k of the live bytes, plus what is too young to have been looked at.

The same copying heals, after a power cut, the stripes of the last commit that were torn, and those of which too few shards
are whole to rebuild the others, while every range can still be decoded from some.

Little is done while there is room; when the drives are nearly full, nearly everything that is gained is worth it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.merge import Merger
from ciaosfs.meta import reports
from ciaosfs.meta.counters import Counter
from ciaosfs.meta.metadata import Metadata
from ciaosfs.stripe.store import ChunkStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Zeal:
    """How much garbage is worth the work: the share of all bytes that is dead, and of a stripe that is live."""

    dead_share_min: float
    live_share_max: float


RELAXED = Zeal(0.10, 0.6)
"""Cheap ones first: two thirds as much is copied as is gained, or less."""
CONCERNED = Zeal(0.15, 0.9)
"""With so much dead altogether, which is 1.18 times the live bytes, there is always a stripe to gain from."""
PRESSED = Zeal(0.02, 0.9)
PRESSED_BELOW = 0.125
"""Share of the space still available below which the compactor is pressed."""


class Compactor:
    """Its steps are taken in the background (`housekeeping.work_off`)."""

    def __init__(self, meta: Metadata, chunks: ChunkStore, merger: Merger, workers: Workers) -> None:
        self._meta = meta
        self._chunks = chunks
        self._merger = merger
        self._workers = workers

    async def rewrite(self, stripe_id: int) -> bool:
        """Copy everything that is live in a stripe into fresh ones, with all their shards. False when it cannot be.

        What it replaces is dead with the next commit.
        """
        try:
            while self._meta.extents.of_stripe(stripe_id, (0, 0), 1):
                if not await self._merger.merge([stripe_id], "compact"):
                    return False
        except (CiaosError, OSError) as error:
            log.info("stripe %d stays as it is: %s", stripe_id, error)
            return False
        return True

    async def step(self) -> bool:
        """Compact a few stripes into one. False when nothing is worth it now, or what there was has been done."""
        counters = self._meta.counters.values
        dead_bytes = counters[Counter.FILE_BYTES] - counters[Counter.ALLOCATED_BYTES]
        dead_share = dead_bytes / max(1, counters[Counter.FILE_BYTES])
        zeal = self._zeal(dead_share)
        if dead_bytes < limits.MIB or dead_share < zeal.dead_share_min:
            return False
        if zeal is not PRESSED and self._meta.stripes.dead(1):
            return False  # wholly dead ones go first, and for nothing: how much is left to gain shows then
        copied_bytes_max = min(limits.STRIPE_PAYLOAD_BYTES_MAX, self._chunks.space().available)
        candidates = await self._workers.run(self._half_dead, zeal.live_share_max, copied_bytes_max)
        return bool(candidates) and await self._merger.merge(candidates, "compact")

    def _zeal(self, dead_share: float) -> Zeal:
        space = self._chunks.space()
        if space.available < PRESSED_BELOW * space.total:
            return PRESSED
        return CONCERNED if dead_share >= CONCERNED.dead_share_min else RELAXED

    def _half_dead(self, live_share_max: float, live_bytes_max: int) -> list[int]:
        with self._meta.reader() as reader:
            return reports.half_dead_stripes(reader, live_share_max, live_bytes_max)
