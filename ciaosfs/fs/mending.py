"""Shards of one stripe are written anew, and the metadata learns their new places: what repair and drain share."""

from __future__ import annotations

from collections.abc import Collection

import trio

from ciaosfs.base.crashpoints import reach
from ciaosfs.base.types import StripeKind, StripeRecord
from ciaosfs.fs.gate import Gate
from ciaosfs.fs.reclaim import Reclaimer
from ciaosfs.meta.metadata import Metadata
from ciaosfs.stripe.layout import place_of
from ciaosfs.stripe.rebuild import replaced_places
from ciaosfs.stripe.store import ChunkStore


class Mender:
    """For the loop. `shards_written` counts what became part of the metadata."""

    def __init__(self, meta: Metadata, chunks: ChunkStore, reclaimer: Reclaimer, gate: Gate) -> None:
        self._meta = meta
        self._chunks = chunks
        self._reclaimer = reclaimer
        self._gate = gate
        self._under_way: dict[int, trio.Event] = {}
        """Stripes that are being mended: two at a time would choose the same drive for two of their shards."""
        self.shards_written = 0

    async def mend(
        self,
        stripe_id: int,
        shard_indexes: Collection[int],
        *,
        avoid: Collection[int] = (),
        points: str = "repair",
    ) -> int:
        """Rebuild these shards of a stripe; returns how many have a new place, in the open transaction.

        0 when the stripe is gone or has died; fewer than asked for when drives are lacking. What lay at the former
        places is given back later. Raises as ChunkStore.rebuild. Runs to its end once begun: needles that nothing
        knows of would stay behind. `points` is the job whose crash points are reached (`.written`, `.recorded`).
        """
        while (other := self._under_way.get(stripe_id)) is not None:
            await other.wait()
        if not shard_indexes or not self.is_live(stripe_id):
            return 0
        self._under_way[stripe_id] = trio.Event()
        self._reclaimer.pin(stripe_id)
        try:
            with trio.CancelScope(shield=True):
                record = self._meta.stripes.load(stripe_id)
                assert record is not None
                rebuilt = await self._chunks.rebuild(record, shard_indexes, avoid=avoid)
                reach(f"{points}.written")
                await self._gate.wait_open()
                count = self._record(record, rebuilt)
                reach(f"{points}.recorded")
        finally:
            self._reclaimer.unpin(stripe_id)
            self._under_way.pop(stripe_id).set()
        return count

    def is_live(self, stripe_id: int) -> bool:
        """Whether anything needs the stripe: a dead one is about to be given back, and may be in part."""
        record = self._meta.stripes.load(stripe_id)
        if record is None:
            return False
        return record.kind is not StripeKind.FILE or bool(self._meta.extents.of_stripe(stripe_id, (0, 0), 1))

    def _record(self, before: StripeRecord, rebuilt: StripeRecord) -> int:
        """No await. What changed while the shards were written wins over them."""
        stripe_id = before.stripe_id
        current = self._meta.stripes.load(stripe_id)
        given_up = []
        count = 0
        for former, place in replaced_places(before, rebuilt):
            if current is None or place_of(current, place.shard_index) != former:
                given_up.append(place)
                continue
            self._meta.stripes.put_shard(stripe_id, place)
            count += 1
            if former is not None:
                given_up.append(former)
        if given_up:
            self._reclaimer.replaced(before, given_up)
        self.shards_written += count
        return count
