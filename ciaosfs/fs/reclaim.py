"""What nobody uses any more goes: inodes without names, and stripes without extents.

Deletion runs backwards: rows first, bytes later. An inode that lost its last name is purged when the kernel has
forgotten it and no handle is open: its extents go in slices, then its row. A file that was cut short by many extents
(`trims`) loses them in slices, too; slicing.py says when. A stripe whose last extent went is
dead: once the commit that says so is durable, its shards are given back to the drives' file systems and its rows
leave with a later commit. A crash between the two leaves dead rows, which the next
pass finds again; giving back twice does no harm. A needle whose shard was written anew elsewhere goes the same way, once
the commit that says so is durable; after a crash in between nothing refers to it, and a scrub finds it.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence

import trio

from ciaosfs.base import limits
from ciaosfs.base.crashpoints import reach
from ciaosfs.base.types import ShardPlace, StripeRecord
from ciaosfs.fs.attributes import TRUNCATE_END
from ciaosfs.fs.files import Files
from ciaosfs.fs.gate import Gate
from ciaosfs.meta.counters import Counter
from ciaosfs.meta.metadata import Metadata
from ciaosfs.stripe.store import ChunkStore

FORGET_CHANGES_MAX = 1024
"""Rows deleted at once when the kernel forgets many inodes in one request, in about 3 ms; the others are queued."""
FORGOTTEN_MAX = 64
DISCARD_BATCH = 1024
"""Stripes that are given back after one commit."""
DISCARD_STEP = 64
"""... and so many at a time: the rows of one take 30 us."""
DISCARD_PAUSE_S = 0.5
"""Between two small batches: overwriting one block again and again need not punch a hole for each commit."""


class Reclaimer:
    """Purges inodes and discards stripes. `busy` counts readers of a stripe: it is not discarded under them."""

    def __init__(self, meta: Metadata, chunks: ChunkStore, files: Files, gate: Gate) -> None:
        self._meta = meta
        self._chunks = chunks
        self._files = files
        self._gate = gate
        self._purging: deque[int] = deque()
        self._forgotten: deque[int] = deque()
        self._readers: dict[int, int] = {}
        self.stripes_discarded = 0
        self._cut_dead: list[int] = []
        self._batch: list[int] = []
        self._replaced: list[StripeRecord] = []
        self._cut_replaced: list[StripeRecord] = []
        self._replaced_batch: list[StripeRecord] = []
        self._batch_ready = trio.Event()
        self._discarded = trio.Event()
        self._hurry = trio.Event()

    @property
    def waiting(self) -> int:
        """Inodes queued for purging, and files that wait to be trimmed."""
        return len(self._purging) + self._meta.trims.count

    @property
    def allocated_bytes(self) -> int:
        """Bytes of files on the drives. Fewer than before: something was deleted and can be given back."""
        return self._meta.counters.values[Counter.ALLOCATED_BYTES]

    def pin(self, stripe_id: int) -> None:
        self._readers[stripe_id] = self._readers.get(stripe_id, 0) + 1

    def unpin(self, stripe_id: int) -> None:
        count = self._readers[stripe_id] - 1
        if count:
            self._readers[stripe_id] = count
        else:
            del self._readers[stripe_id]

    def is_pinned(self, stripe_id: int) -> bool:
        """Whether anybody reads the stripe, perhaps by places that it had before."""
        return stripe_id in self._readers

    def replaced(self, record: StripeRecord, places: Sequence[ShardPlace]) -> None:
        """As of the open transaction nothing refers to the stripe's needles at `places`: they go when that is durable
        and nobody reads the stripe."""
        self._replaced.append(dataclasses.replace(record, places=tuple(places)))

    def is_giving_back(self, volume_id: int) -> bool:
        """Whether needles in the volume wait for their readers, who know former places of stripes."""
        waiting = (*self._replaced, *self._cut_replaced, *self._replaced_batch)
        return any(place.volume_id == volume_id for record in waiting for place in record.places)

    def unlinked(self, ino: int) -> None:
        """The last name of `ino` is gone: its bytes that are not stored need not be, once nobody has it open."""
        self._files.obtain(ino).doomed = True

    def forgotten(self, inodes: Sequence[int]) -> None:
        """The kernel holds no reference to any of them any more."""
        begun = self._meta.database.changes()
        for ino in inodes:
            file = self._files.get(ino)
            if file is not None and file.doomed and not file.handles:
                self._files.drop(file)
                is_much = self._meta.database.changes() - begun >= FORGET_CHANGES_MAX
                if self._gate.closed or is_much or not self._purge_step(ino):
                    self._purging.append(ino)

    def forget_later(self, inodes: Sequence[int]) -> None:
        """As `forgotten`, but what is to be purged waits for `purge_forgotten`, `FORGOTTEN_MAX` at most.

        Whoever deletes file after file waits for the next answer, and nobody for this.
        """
        for ino in inodes:
            file = self._files.get(ino)
            if file is not None and file.doomed and not file.handles:
                self._forgotten.append(ino)
        if len(self._forgotten) > FORGOTTEN_MAX:
            self.purge_forgotten(len(self._forgotten))

    def purge_forgotten(self, count: int) -> bool:
        """Purge up to `count` of those inodes, in about 20 us each; False when none waits."""
        if not self._forgotten:
            return False
        self.forgotten([self._forgotten.popleft() for _ in range(min(count, len(self._forgotten)))])
        return True

    def purge_leftovers(self) -> int:
        """Queue every inode without a name; run when a store is opened, when nothing can be in use. Returns how many."""
        orphans = self._meta.inodes.orphans()
        self._purging.extend(orphans)
        return len(orphans)

    def _purge_step(self, ino: int) -> bool:
        """Delete one slice; True when the inode is gone."""
        if not self._meta.extents.purge_step(ino, limits.SLICE_EXTENTS):
            return False
        self._meta.trims.delete(ino)
        self._meta.inodes.delete(ino)
        return True

    def trim_step(self, ino: int) -> bool:
        """Delete one slice of what lies beyond the end of a file; True when nothing is left. With the gate open."""
        meta = self._meta
        size = meta.trims.size(ino)
        if size is None:
            return True
        if not meta.extents.trim_step(ino, size, limits.SLICE_EXTENTS):
            return False
        # What begins before `size` and reaches beyond is cut in the same step in which the row goes.
        meta.extents.replace(ino, size, TRUNCATE_END, [])
        meta.trims.delete(ino)
        return True

    def step(self) -> bool:
        """One slice of purging or trimming, with the gate open; True while more is waiting."""
        if self._purging:
            begun = self._meta.database.changes()
            while self._purging and self._meta.database.changes() - begun < limits.SLICE_EXTENTS:
                if self._purge_step(self._purging[0]):
                    self._purging.popleft()
        elif (ino := self._meta.trims.first()) is not None:
            self.trim_step(ino)
        return self.waiting > 0

    def committed(self) -> None:
        """A commit was just written: remember what is dead in it, in the same step. Not while a batch waits.

        Nothing can refer to a dead stripe again, so they are as dead when the sync is done. Those that a read
        still uses are left for a later commit.
        """
        self._cut_replaced += self._replaced
        self._replaced = []
        if not self._batch and not self._cut_dead:
            dead = self._meta.stripes.dead(DISCARD_BATCH)
            self._cut_dead = [stripe_id for stripe_id in dead if stripe_id not in self._readers]

    def synced(self) -> None:
        """That commit is durable: what was dead in it may be given back."""
        if not self._batch:
            self._batch, self._cut_dead = self._cut_dead, []
        self._replaced_batch += self._cut_replaced
        self._cut_replaced = []
        if self._batch or self._replaced_batch:
            self._batch_ready.set()

    async def wait_discarded(self) -> None:
        """Return when the batch that is ready or under way, if any, has been given back."""
        if self._batch_ready.is_set():
            self._hurry.set()
            await self._discarded.wait()
            self._hurry = trio.Event()

    async def discard(self) -> None:
        """Give dead stripes back, for ever, beside everything else: no fsync waits for it."""
        count = 0
        while True:
            await self._batch_ready.wait()
            await self._gate.wait_open()
            # No await until a part of the batches is taken, nor from there to the deletion of its rows. While a part is
            # left `committed` looks for no others, so it finds none of these again.
            part, self._batch = self._batch[:DISCARD_STEP], self._batch[DISCARD_STEP:]
            dead = [
                record for stripe_id in part if (record := self._meta.stripes.load(stripe_id)) is not None
            ]
            replaced = [record for record in self._replaced_batch if record.stripe_id not in self._readers]
            self._replaced_batch = [
                record for record in self._replaced_batch if record.stripe_id in self._readers
            ]
            if replaced:
                reach("repair.durable")
            for record in dead:
                self._meta.stripes.delete(record.stripe_id)
            await self._chunks.discard(dead + replaced)
            if replaced:
                reach("repair.given-back")
            self.stripes_discarded += len(dead)
            count += len(part)
            if len(part) == DISCARD_STEP and self._batch:
                continue
            self._batch_ready = trio.Event()
            discarded, self._discarded = self._discarded, trio.Event()
            discarded.set()
            if self._batch or self._replaced_batch:  # became durable meanwhile, or is still being read
                self._batch_ready.set()
            if count < DISCARD_BATCH:
                with trio.move_on_after(DISCARD_PAUSE_S):
                    await self._hurry.wait()
            count = 0
