"""A range of one shard from the same range of others: which are read, and the decoding."""

from __future__ import annotations

import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import DriveGoneError, ShardDamagedError, StoreError, StripeLostError
from ciaosfs.base.types import Buffer, ShardPlace, StripeRecord
from ciaosfs.codec.checksum import verify_blocks
from ciaosfs.codec.erasure import reconstruct
from ciaosfs.drive.workers import Workers
from ciaosfs.stripe.damage import DamageReports, no_volume
from ciaosfs.stripe.fetching import ShardFetcher
from ciaosfs.stripe.layout import ShardRange, place_of, plan_degraded

DECODE_INLINE_BYTES_MAX = 64 * limits.KIB
"""Decoding a range of a shard this long takes less time than a thread hop."""


class Gatherer:
    """For the loop."""

    def __init__(self, shards: ShardFetcher, workers: Workers, damage: DamageReports) -> None:
        self._shards = shards
        self._workers = workers
        self._damage = damage

    async def decode(self, stripe: StripeRecord, wanted: ShardRange, unreachable: int) -> Buffer:
        """A range of one shard from the same range of others. `unreachable` is 1 if it may be whole where it
        is.

        When the shard's own head is known the range is widened to whole blocks, and the result checked as if
        it had been read.
        """
        place = place_of(stripe, wanted.shard_index)
        known = None if place is None else self._shards.known(place)
        low, high = wanted.start, wanted.start + wanted.length
        if known is not None:
            unit = limits.CHECK_BLOCK_BYTES
            low, high = low // unit * unit, min(stripe.shard_bytes, -(-high // unit) * unit)
        good = await self._gather(stripe, wanted.shard_index, low, high - low, unreachable)
        if stripe.data_count == 1 or high - low <= DECODE_INLINE_BYTES_MAX:
            data = _reconstruct(stripe, good, wanted.shard_index)
        else:
            data = await self._workers.run(_reconstruct, stripe, good, wanted.shard_index)
        if known is not None:
            sums, first = known.head.sums, low // limits.CHECK_BLOCK_BYTES
            if verify_blocks(data, sums, first, stripe.stripe_id, wanted.shard_index) is not None:
                raise StripeLostError(
                    f"Shard {wanted.shard_index} of stripe {stripe.stripe_id} was decoded from verified shards "
                    "and fails its own checksums: the shards do not belong together."
                )
        return memoryview(data)[wanted.start - low : wanted.start - low + wanted.length]

    async def _gather(
        self, stripe: StripeRecord, wanted: int, start: int, length: int, unreachable: int
    ) -> dict[int, memoryview]:
        """The same range of `data_count` other shards, read at the same time, as few as will do.

        StripeLostError when there are not so many; DriveGoneError if there may be, counting the
        `unreachable`.
        """
        good: dict[int, memoryview] = {}
        waiting = plan_degraded(stripe, wanted)
        waiting.reverse()

        async def fetch(place: ShardPlace) -> None:
            nonlocal unreachable
            try:
                good[place.shard_index] = await self._workers.run(
                    self._shards.fetch, stripe, place, start, length
                )
            except (ShardDamagedError, StoreError, DriveGoneError, OSError) as error:
                unreachable += not self._damage.report(stripe, place, error)

        while len(good) < stripe.data_count and waiting:
            round_: list[ShardPlace] = []
            while waiting and len(good) + len(round_) < stripe.data_count:
                place = waiting.pop()
                if self._shards.files.get(place.volume_id) is None:
                    unreachable += not self._damage.report(stripe, place, no_volume(place))
                else:
                    round_.append(place)
            async with trio.open_nursery() as nursery:
                for place in round_:
                    nursery.start_soon(fetch, place)
        if len(good) >= stripe.data_count:
            return good
        if len(good) + unreachable >= stripe.data_count:
            raise DriveGoneError(
                f"Stripe {stripe.stripe_id} needs {stripe.data_count} shards and {len(good)} can be reached: "
                "look after the drives that are absent or failing."
            )
        raise StripeLostError(
            f"Stripe {stripe.stripe_id} is lost: {len(good)} good shards are left of the "
            f"{stripe.data_count} it needs."
        )


def _reconstruct(stripe: StripeRecord, good: dict[int, memoryview], wanted: int) -> Buffer:
    chosen: dict[int, Buffer] = dict(good)
    return reconstruct(chosen, stripe.data_count, stripe.parity_count, [wanted])[wanted]
