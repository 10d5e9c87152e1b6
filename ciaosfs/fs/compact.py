"""Space held by half-dead stripes comes back: what is still live in them is copied into a fresh stripe.

A stripe holds bytes of many small files; deleting some of them frees nothing until the last one goes. The compactor
picks stripes of which little is live, reads just what extents still point to, writes it as one new stripe and
repoints the extents, in one step of the open transaction. The old stripes are dead with that commit and are given
back after its sync, as any others. A crash at any moment leaves either the old extents or the new ones, and a new
stripe that nobody refers to is dead space. A compressed block is copied as it is stored, unless less of it is live than
that takes: then the live bytes are stored raw. So the copy is never larger than what is live, and always a gain.

The same copying heals, after a power cut, the stripes of the last commit that were torn, and those of which too few shards
are whole to rebuild the others, while every range can still be decoded from some.

Little is done while there is room; when the drives are nearly full, nearly everything that is gained is worth it.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

import trio

from ciaosfs.base import limits
from ciaosfs.base.crashpoints import reach
from ciaosfs.base.errors import CiaosError
from ciaosfs.base.types import Buffer, Codec, Extent, StripeRecord
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.gate import Gate
from ciaosfs.fs.payload import unpack
from ciaosfs.fs.reclaim import Reclaimer
from ciaosfs.meta import reports
from ciaosfs.meta.counters import Counter as Count
from ciaosfs.meta.cutting import cut
from ciaosfs.meta.metadata import Metadata
from ciaosfs.stripe.store import ChunkStore

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Between two looks whether there is anything to do."""
EXTENTS_MAX = 512
"""Extents moved in one step; repointing one takes about 10 us, so the loop is held for 5 ms."""


@dataclass(frozen=True, slots=True)
class Zeal:
    """How much garbage is worth the work: the share of all payload that is dead, and of a stripe that is live."""

    dead_share_min: float
    live_share_max: float


RELAXED = Zeal(0.25, 0.5)
PRESSED = Zeal(0.02, 0.9)
PRESSED_BELOW = 0.125
"""Share of the space still available below which the compactor is pressed."""


class Compactor:
    """A background task. `copied_bytes` counts payload written again."""

    def __init__(
        self, meta: Metadata, chunks: ChunkStore, reclaimer: Reclaimer, gate: Gate, workers: Workers
    ) -> None:
        self._meta = meta
        self._chunks = chunks
        self._reclaimer = reclaimer
        self._gate = gate
        self._workers = workers
        self.copied_bytes = 0

    async def rewrite(self, stripe_id: int) -> bool:
        """Copy everything that is live in a stripe into fresh ones, with all their shards. False when it cannot be.

        What it replaces is dead with the next commit.
        """
        try:
            while self._meta.extents.of_stripe(stripe_id, (0, 0), 1):
                if not await self._merge([stripe_id]):
                    return False
        except (CiaosError, OSError) as error:
            log.info("stripe %d stays as it is: %s", stripe_id, error)
            return False
        return True

    async def run(self) -> None:
        """Look and work, for ever. Trouble with drives is not ours to report: it is tried again later."""
        while True:
            await trio.sleep(LOOK_S)
            try:
                while await self.step():
                    await trio.lowlevel.checkpoint()
            except (CiaosError, OSError) as error:
                log.info("compaction waits: %s", error)
            except Exception:  # our bug: nothing has been repointed, the mount stays up
                log.exception("compaction failed")

    async def step(self) -> bool:
        """Compact a few stripes into one. False when nothing is worth it now, or what there was has been done."""
        zeal = self._zeal()
        counters = self._meta.counters.values
        payload = counters[Count.PAYLOAD_BYTES]
        if payload - counters[Count.ALLOCATED_BYTES] < max(limits.MIB, zeal.dead_share_min * payload):
            return False
        copied_bytes_max = min(limits.STRIPE_PAYLOAD_BYTES_MAX, self._chunks.space().available)
        candidates = await self._workers.run(self._half_dead, zeal.live_share_max, copied_bytes_max)
        return bool(candidates) and await self._merge(candidates)

    def _zeal(self) -> Zeal:
        space = self._chunks.space()
        return PRESSED if space.available < PRESSED_BELOW * space.total else RELAXED

    def _half_dead(self, live_share_max: float, live_bytes_max: int) -> list[int]:
        with self._meta.reader() as reader:
            return reports.half_dead_stripes(reader, live_share_max, live_bytes_max)

    async def _merge(self, stripe_ids: list[int]) -> bool:
        moves: list[tuple[int, Extent]] = []
        sources: list[StripeRecord] = []
        for stripe_id in stripe_ids:
            room = EXTENTS_MAX - len(moves)
            record = self._meta.stripes.load(stripe_id)
            found = self._meta.extents.of_stripe(stripe_id, (0, 0), room + 1)
            if record is None or not found or (len(found) > room and moves):
                continue
            moves += found[:room]
            sources.append(record)
        if not sources:
            return False
        for record in sources:
            self._reclaimer.pin(record.stripe_id)
        try:
            pieces, copies = await self._read({record.stripe_id: record for record in sources}, moves)
            reach("compact.read")
            copy = await self._chunks.write_stripe(pieces)
            reach("compact.written")
        finally:
            for record in sources:
                self._reclaimer.unpin(record.stripe_id)
        await self._gate.wait_open()
        self._meta.stripes.insert(copy)
        for (ino, moved), copied in zip(moves, copies, strict=True):
            self._repoint(ino, moved, copied._replace(stripe_id=copy.stripe_id))
        reach("compact.repointed")
        self.copied_bytes += copy.payload_bytes
        return True

    async def _read(
        self, records: dict[int, StripeRecord], moves: list[tuple[int, Extent]]
    ) -> tuple[list[Buffer], list[Extent]]:
        """The new payload, and for each extent to be moved the one that maps the same bytes of the file into it."""
        live: Counter[tuple[int, int]] = Counter()
        for _, extent in moves:
            live[_block(extent)] += extent.length
        pieces: list[Buffer] = []
        copies: list[Extent] = []
        starts: dict[tuple[int, int], int] = {}
        at = 0
        for _, extent in moves:
            block = _block(extent)
            if block in starts:
                copies.append(extent._replace(stripe_offset=starts[block]))
                continue
            data = await self._chunks.read(
                records[extent.stripe_id], extent.stripe_offset, extent.stored_length
            )
            if extent.codec != Codec.RAW and live[block] <= extent.stored_length:
                data = await self._workers.run(unpack, data, extent.skip, extent.length)
                copies.append(Extent(extent.offset, extent.length, 0, at, extent.length, Codec.RAW, 0))
            else:
                starts[block] = at
                copies.append(extent._replace(stripe_offset=at))
            pieces.append(data)
            at += len(data)
        return pieces, copies

    def _repoint(self, ino: int, moved: Extent, copied: Extent) -> None:
        """Let what is left of `moved` in the file point to its copy. It may have been cut or replaced meanwhile."""
        end = moved.offset + moved.length
        for extent in self._meta.extents.overlapping(ino, moved.offset, end):
            if cut(moved, extent.offset, extent.offset + extent.length) != extent:
                continue  # something else, or more than that: its bytes stay where they are
            part = cut(copied, extent.offset, extent.offset + extent.length)
            assert part is not None
            self._meta.extents.replace(ino, part.offset, part.offset + part.length, [part])


def _block(extent: Extent) -> tuple[int, int]:
    """What names a stored block: cut pieces of one compressed block share it."""
    return extent.stripe_id, extent.stripe_offset
