"""Verified payload bytes of stripes, whatever becomes of up to `parity_count` of their shards.

Four ways, each when the one before cannot: from the page cache, in the loop (`read_nowait`, which `fs/` passes over for what
was read ahead); from what was read ahead (`prefetching.py`); from the drives that have the bytes, in worker threads; decoded
from the same range of other shards, also when a drive lags. The last three are `read`, and a race
between the last two is in `gathering.py`.
A shard that is damaged is reported through `on_damage`; one whose drive is absent is not, that is no damage.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from ciaosfs.base.errors import (
    CiaosError,
    DamagedError,
    DriveGoneError,
    ShardDamagedError,
    StoreError,
    StripeLostError,
)
from ciaosfs.base.types import Buffer, StripeRecord
from ciaosfs.drive.calls import DriveCalls
from ciaosfs.drive.workers import Workers
from ciaosfs.stripe.damage import DamageReports
from ciaosfs.stripe.fetching import ShardFetcher
from ciaosfs.stripe.gathering import Gatherer
from ciaosfs.stripe.layout import ShardRange, plan_read, split_blocks
from ciaosfs.stripe.prefetching import Prefetcher

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReaderStatistics:
    """Counts since the store was opened: reads answered in the loop, and by threads; ranges of shards that had to be
    decoded, that were asked for from others besides because their drive lagged (and how often those were first), and
    that went round a drive known to lag; bad shards met."""

    reads_nowait: int
    reads: int
    reads_degraded: int
    hedges: int
    hedges_won: int
    rounds: int
    shards_damaged: int
    heads_cached: int
    heads_learnt: int
    """Heads of needles that were not known and had to be read from a drive."""
    ahead_taken: int
    """Ranges of shards that had been read ahead into memory when they were asked for."""
    ahead_wasted: int
    """Pieces of shards that were read ahead into memory and let go of unread."""


class StripeReader:
    """Reads stripes. All methods are for the loop."""

    def __init__(
        self,
        shards: ShardFetcher,
        prefetcher: Prefetcher,
        workers: Workers,
        calls: DriveCalls,
        damage: DamageReports,
    ) -> None:
        self._files = shards.files
        self._prefetcher = prefetcher
        self._calls = calls
        self._shards = shards
        self._damage = damage
        self._gatherer = Gatherer(shards, workers, calls, damage)
        self._read_shard_nowait = shards.read_nowait
        self._reads_nowait = 0
        self._reads = 0

    # In the loop, from the page cache

    def read_nowait(self, stripe: StripeRecord, offset: int, length: int) -> Buffer | None:
        """See ChunkStore.read_nowait. Called for every read of a file: no range objects, no plan, one
        look-up."""
        shard_bytes = stripe.shard_bytes
        index = offset // shard_bytes
        start = offset - index * shard_bytes
        if start + length > shard_bytes:
            return self._read_spanning_nowait(stripe, offset, length)
        places = stripe.places
        if index < len(places) and places[index].shard_index == index:
            found = self._read_shard_nowait(stripe, places[index], start, length)
            if found is not None:
                self._reads_nowait += 1
                return found
        if stripe.data_count == 1:
            for place in places:
                found = self._read_shard_nowait(stripe, place, start, length)
                if found is not None:
                    self._reads_nowait += 1
                    return found
        return None

    def _read_spanning_nowait(self, stripe: StripeRecord, offset: int, length: int) -> Buffer | None:
        parts: list[Buffer] = []
        for shard_index, start, part_length in plan_read(stripe, offset, length):
            found = self.read_nowait(stripe, shard_index * stripe.shard_bytes + start, part_length)
            if found is None:
                return None
            parts.append(found)
        return b"".join(parts)

    # In worker threads, from the drives

    async def read(
        self, stripe: StripeRecord, offset: int, length: int, *, with_neighbours: bool = False
    ) -> Buffer:
        """See ChunkStore.read."""
        ranges = plan_read(stripe, offset, length)
        self._reads += 1
        if len(ranges) == 1:
            data = await self._read_by_blocks(stripe, ranges[0], with_neighbours=with_neighbours)
        else:
            data = b"".join(await self._read_ranges(stripe, ranges))
        self._files.trim()
        return data

    async def is_readable(self, stripe: StripeRecord) -> bool:
        """See ChunkStore.is_readable."""
        try:
            await self._read_ranges(stripe, plan_read(stripe, 0, stripe.payload_bytes))
        except (DamagedError, DriveGoneError):
            return False
        finally:
            self._files.trim()
        return True

    async def damaged_shards(self, stripe: StripeRecord) -> list[int]:
        """See ChunkStore.damaged_shards."""
        damaged = []
        for place in stripe.places:
            volume = self._files.get(place.volume_id)
            if volume is None:
                continue
            number, length = volume.drive_number, stripe.shard_bytes
            try:
                await self._calls.call(number, self._shards.fetch, stripe, place, 0, length)
            except (ShardDamagedError, FileNotFoundError):
                damaged.append(place.shard_index)
            except (StoreError, DriveGoneError, OSError) as error:
                log.info("shard %d of stripe %d: %s", place.shard_index, stripe.stripe_id, error)
        self._files.trim()
        return damaged

    async def _read_ranges(self, stripe: StripeRecord, ranges: Sequence[ShardRange]) -> list[Buffer]:
        """Several shards at the same time. The first error in the order of the ranges is raised."""
        parts: list[Buffer] = [b""] * len(ranges)
        errors: dict[int, CiaosError] = {}

        async def read_one(number: int) -> None:
            try:
                parts[number] = await self._read_by_blocks(stripe, ranges[number])
            except CiaosError as error:
                errors[number] = error

        async with trio.open_nursery() as nursery:
            for number in range(len(ranges)):
                nursery.start_soon(read_one, number)
        if errors:
            raise errors[min(errors)]
        return parts

    async def _read_by_blocks(
        self, stripe: StripeRecord, wanted: ShardRange, *, with_neighbours: bool = False
    ) -> Buffer:
        """One range of one data shard; block by block if too many shards have a bad block somewhere in it."""
        found = await self._prefetcher.read(stripe, wanted)
        if found is not None:
            return found
        try:
            return await self._gatherer.read(stripe, wanted, with_neighbours=with_neighbours)
        except StripeLostError:
            blocks = split_blocks(wanted)
            if len(blocks) == 1:
                raise
        return b"".join([await self._gatherer.read(stripe, block) for block in blocks])

    def statistics(self) -> ReaderStatistics:
        return ReaderStatistics(
            self._reads_nowait,
            self._reads,
            self._gatherer.degraded,
            self._gatherer.hedges,
            self._gatherer.hedges_won,
            self._gatherer.rounds,
            self._damage.count,
            self._shards.heads_cached,
            self._shards.heads_learnt,
            self._prefetcher.taken,
            self._prefetcher.wasted,
        )
