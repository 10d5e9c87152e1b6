"""What is live in some stripes, copied into a fresh one: the step that compaction, packing, defragmenting and healing share.

Just what extents still point to is read, written as one new coded stripe, and the extents are repointed in one step
of the open transaction. The old stripes are dead with that commit and are given back after its sync, as any others.
A crash at any moment leaves either the old extents or the new ones, and a new stripe that nobody refers to is dead
space. The live bytes are laid out as if they had just been written: in the order of their files, so that neighbours that
were written at different times become one extent, and compressed anew where they were compressed. So the copy is never
larger than what is live.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TypeAlias

from ciaosfs.base import limits
from ciaosfs.base.crashpoints import reach
from ciaosfs.base.errors import DamagedError
from ciaosfs.base.types import Buffer, Codec, Extent, StripeRecord
from ciaosfs.codec.compression import decompress_bytes
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.gate import Gate
from ciaosfs.fs.payload import Cargo, Load, build_load
from ciaosfs.fs.reclaim import Reclaimer
from ciaosfs.meta.cutting import cut
from ciaosfs.meta.metadata import Metadata
from ciaosfs.stripe.store import ChunkStore

EXTENTS_MAX = 512
"""Extents moved in one step; repointing one takes about 10 us, so the loop is held for 5 ms."""

Move: TypeAlias = tuple[int, Extent]
"""An inode and an extent of its file."""
Block: TypeAlias = tuple[int, int, int]
"""Stripe, first byte in its payload, length there: what names stored bytes."""


class Merger:
    """Copies live bytes of stripes. `copied_bytes` counts payload written again."""

    def __init__(
        self, meta: Metadata, chunks: ChunkStore, reclaimer: Reclaimer, gate: Gate, workers: Workers
    ) -> None:
        self._meta = meta
        self._chunks = chunks
        self._reclaimer = reclaimer
        self._gate = gate
        self._workers = workers
        self.copied_bytes = 0

    async def merge(self, stripe_ids: Sequence[int], job: str) -> bool:
        """Copy what is live in the stripes, or in as many of them as one step can move; False when nothing is.

        The caller sees to it that this is no more than a stripe's payload. `job` names the crash points. Raises what
        reading and writing stripes raise; then nothing has changed.
        """
        moves: list[Move] = []
        sources: dict[int, StripeRecord] = {}
        for stripe_id in stripe_ids:
            room = EXTENTS_MAX - len(moves)
            record = self._meta.stripes.load(stripe_id)
            found = self._meta.extents.of_stripe(stripe_id, (0, 0), room + 1)
            if record is None or not found or (len(found) > room and moves):
                continue
            moves += found[:room]
            sources[stripe_id] = record
        moves.sort(key=_place_in_file)
        return await self._copy(moves, sources, job)

    async def move(self, moves: Sequence[Move], job: str) -> bool:
        """Copy extents, in the order of their files, into one stripe; False when none of them is left.

        They were seen at some former moment: what is not so any more is left alone. The caller sees to it that they are
        no more than EXTENTS_MAX, and a stripe's payload. `job` and errors as for `merge`.
        """
        left: list[Move] = []
        sources: dict[int, StripeRecord] = {}
        for ino, extent in moves:
            record = self._meta.stripes.load(extent.stripe_id)
            end = extent.offset + extent.length
            if record is not None and self._meta.extents.overlapping(ino, extent.offset, end) == [extent]:
                left.append((ino, extent))
                sources[extent.stripe_id] = record
        return await self._copy(left, sources, job)

    async def _copy(self, moves: Sequence[Move], sources: Mapping[int, StripeRecord], job: str) -> bool:
        if not moves:
            return False
        for stripe_id in sources:
            self._reclaimer.pin(stripe_id)
        try:
            stored = await self._read(sources, moves)
            load = await self._workers.run(_lay_out, moves, stored)
            reach(f"{job}.read")
            copy = await self._chunks.write_stripe(load.pieces, coded=True)
            reach(f"{job}.written")
        finally:
            for stripe_id in sources:
                self._reclaimer.unpin(stripe_id)
        await self._gate.wait_open()
        self._meta.stripes.insert(copy, sum(extent.length for _, extent in moves))
        for (ino, moved), copied in zip(_by_file(moves), load.extents, strict=True):
            self._repoint(ino, moved, [extent._replace(stripe_id=copy.stripe_id) for extent in copied])
        reach(f"{job}.repointed")
        self.copied_bytes += copy.payload_bytes
        return True

    async def _read(self, records: Mapping[int, StripeRecord], moves: Sequence[Move]) -> dict[Block, Buffer]:
        """What is stored, by what names it. Raw bytes are only those of the extent."""
        stored: dict[Block, Buffer] = {}
        for _, extent in moves:
            block = _block(extent)
            if block not in stored:
                stored[block] = await self._chunks.read(
                    records[extent.stripe_id], extent.stripe_offset, extent.stored_length
                )
        return stored

    def _repoint(self, ino: int, moved: list[Extent], copied: list[Extent]) -> None:
        """Let what is left of `moved` in the file point to its copy. It may have been cut or replaced meanwhile."""
        for start, end in self._unchanged(ino, moved):
            parts = [part for extent in copied if (part := cut(extent, start, end)) is not None]
            self._meta.extents.replace(ino, start, end, parts)

    def _unchanged(self, ino: int, moved: list[Extent]) -> list[tuple[int, int]]:
        """The ranges in which the file still maps to what was copied, in order; neighbours are one."""
        ranges: list[tuple[int, int]] = []
        for old in moved:
            for extent in self._meta.extents.overlapping(ino, old.offset, old.offset + old.length):
                end = extent.offset + extent.length
                if cut(old, extent.offset, end) != extent:
                    continue  # something else, or more than that: its bytes stay where they are
                if ranges and ranges[-1][1] == extent.offset:
                    ranges[-1] = (ranges[-1][0], end)
                else:
                    ranges.append((extent.offset, end))
        return ranges


def _lay_out(moves: Sequence[Move], stored: dict[Block, Buffer]) -> Load:
    """A payload of the live bytes, as if they had just been written. Blocking, a few ms.

    A file of which anything was compressed is compressed again: what came in crumbs gains most.
    """
    last: Block | None = None
    plain: Buffer = b""
    cargos = []
    for ino, extents in _by_file(moves):
        parts: list[tuple[int, Buffer]] = []
        for extent in extents:
            block = _block(extent)
            if extent.codec == Codec.RAW:
                parts.append((extent.offset, stored[block]))
                continue
            # Pieces of one block are neighbours here. Only one block is kept unpacked, and of it only what is live: a few
            # bytes of each of 512 blocks would hold 64 MiB.
            if block != last:
                plain, last = decompress_bytes(stored[block], limits.COMPRESS_BLOCK_BYTES), block
            data = bytes(memoryview(plain)[extent.skip : extent.skip + extent.length])
            if len(data) < extent.length:
                raise DamagedError(
                    f"a compressed block of stripe {extent.stripe_id} is shorter than its extent"
                )
            parts.append((extent.offset, data))
        cargos.append(Cargo(ino, parts, any(extent.codec != Codec.RAW for extent in extents)))
    return build_load(cargos)


def _by_file(moves: Sequence[Move]) -> list[tuple[int, list[Extent]]]:
    """The moves of each file, in the order of its offsets."""
    return [(ino, [extent for _, extent in group]) for ino, group in groupby(moves, key=lambda move: move[0])]


def _block(extent: Extent) -> Block:
    """What names the stored bytes of an extent: cut pieces of one compressed block share them."""
    return extent.stripe_id, extent.stripe_offset, extent.stored_length


def _place_in_file(move: Move) -> tuple[int, int]:
    ino, extent = move
    return ino, extent.offset
