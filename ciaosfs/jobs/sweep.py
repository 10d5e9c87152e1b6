"""What nobody refers to in a volume is given back: needles of stripes that died while their drive was away, of shards
that were rebuilt elsewhere, of commits that a crash forgot.

The needles in the volume are held against the metadata. One that nothing refers to is garbage if nothing ever will:

- Its stripe is not under way: its id was given before the volume was looked at, and by now it is part of the metadata,
  or its write has failed. (Rebuilding pins the stripe until its new places are recorded.)
- Nothing refers to it in a *durable* commit either: a place is never taken up again once it was left, so it is enough
  that everything was synced after the look.
- Nobody reads it by a record of before: the stripe is not pinned.

Only shards are touched. Commits and the roots of images have an owner of their own, who deletes whole volumes.
"""

from __future__ import annotations

import logging

import trio

from ciaosfs.base.errors import CiaosError
from ciaosfs.base.types import StripeRecord
from ciaosfs.fs.parts import Parts

log = logging.getLogger(__name__)

STEP_NEEDLES = 200
"""Held against the metadata without a pause; each takes about 3 us."""
GARBAGE_MAX = 4096
"""Needles that wait for a sync; then they are given back before more is looked for."""


class Sweeper:
    """For the loop. `needles` counts what was given back."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._garbage: list[StripeRecord] = []
        self.needles = 0

    async def sweep(self, volume_id: int) -> None:
        """Look for garbage in a volume. A drive that is away or fails keeps its own until another time."""
        try:
            shards = await self._parts.chunks.list_shards(volume_id)
        except (CiaosError, OSError) as error:
            log.debug("volume %016x is not swept: %s", volume_id, error)
            return
        for at in range(0, len(shards), STEP_NEEDLES):
            self._garbage += [shard for shard in shards[at : at + STEP_NEEDLES] if self._is_garbage(shard)]
            await trio.lowlevel.checkpoint()
        if len(self._garbage) >= GARBAGE_MAX:
            await self.give_back()

    async def give_back(self) -> None:
        """Punch what was found. Raises what keeps the metadata from becoming durable."""
        if not self._garbage:
            return
        found, self._garbage = self._garbage, []
        await self._parts.committer.sync()
        # Cleared meanwhile: nothing; read meanwhile by an old record: left for another time.
        garbage = [shard for shard in found if self._is_garbage(shard)]
        if garbage:
            await self._parts.chunks.discard(garbage)
            self.needles += len(garbage)

    def _is_garbage(self, shard: StripeRecord) -> bool:
        return (
            not self._parts.chunks.is_under_way(shard.stripe_id)
            and not self._parts.reclaimer.is_pinned(shard.stripe_id)
            and self._parts.meta.stripes.place(shard.stripe_id, shard.places[0].shard_index)
            != shard.places[0]
        )
