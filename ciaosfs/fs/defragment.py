"""Files that were written in crumbs all over are laid out anew, so that reading them in order is reading in order again.

Random small writes into a large file leave its neighbours in as many stripes as there were flights: each 4 KiB of a
sequential read is then another place on the drives. When nothing has been written there for a while, a run of small
neighbouring extents is copied into one stripe, where they are one extent (or whole compressed blocks). The copying is
`merge`'s: what changes meanwhile stays, and a crash leaves the old or the new.

Every file is looked through in turn, some thousands of extents at a time; when a whole turn has found nothing and
nothing has been committed since it began, there is none until something is. A run that is still being written to waits: a
database that is updated all the time is never copied for nothing. What is copied is dead in its old stripes, so nothing
is done where the drives are nearly full; nor while a drive is away, for the copy would lack a shard that the old stripe
may still have there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import trio

from ciaosfs.base import clock, limits
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.compact import PRESSED_BELOW
from ciaosfs.fs.merge import EXTENTS_MAX, Merger, Move
from ciaosfs.meta import reports
from ciaosfs.meta.metadata import Metadata
from ciaosfs.stripe.store import ChunkStore, DriveState

LOOK_EXTENTS = 4096
"""Extents looked at in one step: some milliseconds, in a thread."""
PAUSE_S = 0.05
"""After each run that was copied: about as long as that took, so that requests find the drives free half of the time."""
STORED_BYTES_MAX = 2 * limits.STRIPE_PAYLOAD_BYTES_MAX
"""Read for one run, and in memory meanwhile."""


class Plan(NamedTuple):
    """What a look found: a run to be copied, if any; how many of the rows are done with it, of those before, or of all; and
    whether one of these is only too young."""

    run: list[Move]
    done: int
    is_waiting: bool


def plan_run(rows: Sequence[Move], now_ms: int) -> Plan:
    """The first run of small neighbours among `rows` (in order) that is worth copying.

    A run that reaches the end of the rows may go on behind them: it is left for the next look, unless it is all there is.
    """
    begin, is_waiting = 0, False
    while begin < len(rows):
        end = _end_of_run(rows, begin)
        if end == len(rows) and begin > 0:
            return Plan([], begin, is_waiting)
        if end - begin >= limits.DEFRAGMENT_EXTENTS_MIN:
            run = list(rows[begin:end])
            made_ms = max(clock.made_ms(extent.stripe_id) for _, extent in run)
            if now_ms - made_ms >= limits.DEFRAGMENT_AGE_S * 1000:
                return Plan(run, end, is_waiting)
            is_waiting = True
        begin = end
    return Plan([], len(rows), is_waiting)


def _end_of_run(rows: Sequence[Move], begin: int) -> int:
    """Behind small extents of one file without holes between them, no more than one step moves; at least behind one.

    Pieces of compressed blocks are small, and the blocks are read whole: they are bounded, too, all together.
    """
    end, together, stored = begin, 0, 0
    blocks: set[tuple[int, int]] = set()
    while end < len(rows) and end - begin < EXTENTS_MAX:
        ino, extent = rows[end]
        together += extent.length
        block = extent.stripe_id, extent.stripe_offset
        stored += 0 if block in blocks else extent.stored_length
        blocks.add(block)
        if extent.length > limits.DEFRAGMENT_EXTENT_BYTES_MAX or together > limits.STRIPE_PAYLOAD_BYTES_MAX:
            break
        if stored > STORED_BYTES_MAX:
            break
        if end > begin:
            former_ino, former = rows[end - 1]
            if former_ino != ino or former.offset + former.length != extent.offset:
                break
        end += 1
    return max(end, begin + 1)


class Defragmenter:
    """Its steps are taken in the background (`housekeeping.work_off`)."""

    def __init__(self, meta: Metadata, chunks: ChunkStore, merger: Merger, workers: Workers) -> None:
        self._meta = meta
        self._chunks = chunks
        self._merger = merger
        self._workers = workers
        self._after = (0, 0)
        self._is_worthwhile = False
        """Whether the turn has found something, or what will be worth copying when it is older."""
        self._turn_began_at = -1
        self._idle_at = -1

    async def step(self) -> bool:
        """Look at some extents, and copy a run of them. False when there was none among them."""
        sequence = self._meta.state.load().sequence
        if sequence == self._idle_at or not self._may_copy():
            return False
        if self._after == (0, 0):
            self._turn_began_at = sequence
        plan, next_after = await self._workers.run(self._look, self._after)
        self._is_worthwhile = self._is_worthwhile or bool(plan.run) or plan.is_waiting
        self._after = next_after
        if next_after == (0, 0):
            self._idle_at = -1 if self._is_worthwhile else self._turn_began_at
            self._is_worthwhile = False
        if not plan.run or not await self._merger.move(plan.run, "defragment"):
            return False
        await trio.sleep(PAUSE_S)
        return True

    def _may_copy(self) -> bool:
        space = self._chunks.space()
        is_roomy = space.available >= PRESSED_BELOW * space.total
        return is_roomy and all(drive.state is DriveState.ONLINE for drive in self._chunks.drive_statuses())

    def _look(self, after: tuple[int, int]) -> tuple[Plan, tuple[int, int]]:
        """What is behind `after`, and where to go on; (0, 0) at the end of all extents. Blocking, some milliseconds."""
        with self._meta.reader() as reader:
            rows = reports.extents_after(reader, *after, LOOK_EXTENTS)
        plan = plan_run(rows, clock.now_ns() // 1_000_000)
        if plan.done == len(rows) < LOOK_EXTENTS:
            return plan, (0, 0)
        ino, extent = rows[plan.done - 1]
        return plan, (ino, extent.offset)
