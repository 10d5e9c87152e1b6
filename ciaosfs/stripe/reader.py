"""Verified payload bytes of stripes, whatever becomes of up to `parity_count` of their shards.

Three ways, each when the one before cannot: from the page cache, in the loop (`read_nowait`); from the drives
that have the bytes, in worker threads; decoded from the same range of other shards. The last two are `read`.
A shard that is damaged is reported through `on_damage`; one whose drive is absent is not, that is no damage.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import (
    CiaosError,
    DamagedError,
    DriveGoneError,
    ShardDamagedError,
    StoreError,
    StripeLostError,
)
from ciaosfs.base.types import Buffer, ShardPlace, StripeRecord
from ciaosfs.codec.checksum import verify_blocks
from ciaosfs.codec.erasure import reconstruct
from ciaosfs.codec.needle import NeedleKind, needle_bytes_for
from ciaosfs.drive.interface import DriveFile
from ciaosfs.drive.workers import Workers
from ciaosfs.stripe.durability import OnDamage
from ciaosfs.stripe.heads import HeadCache, KnownShard
from ciaosfs.stripe.layout import ShardRange, place_of, plan_degraded, plan_read
from ciaosfs.stripe.spreading import Written
from ciaosfs.volume.files import VolumeFile, VolumeFiles
from ciaosfs.volume.reader import read_head, read_range, read_range_nowait

log = logging.getLogger(__name__)

NEIGHBOURS_BYTES = 256 * limits.KIB
"""Read around a small file: those that were written together are often read together, and share a stripe. Little enough
not to drown a reader who takes one file here and one there out of millions."""
DECODE_INLINE_BYTES_MAX = 64 * limits.KIB
"""Decoding a range of a shard this long takes less time than a thread hop."""
REPORTS_MAX = 1024
"""Damaged shards remembered so that the log names each once."""


@dataclass(frozen=True, slots=True)
class ReaderStatistics:
    """Counts since the store was opened: reads answered in the loop, by threads, by decoding; bad shards
    met."""

    reads_nowait: int
    reads: int
    reads_degraded: int
    shards_damaged: int
    heads_cached: int


class StripeReader:
    """Reads stripes. `all_present` says whether every drive of the store is there.

    All methods are for the loop, except `advise`.
    """

    def __init__(
        self, files: VolumeFiles, workers: Workers, on_damage: OnDamage, all_present: Callable[[], bool]
    ) -> None:
        self._files = files
        self._workers = workers
        self._on_damage = on_damage
        self._all_present = all_present
        self._heads = HeadCache()
        self._reported: dict[tuple[int, int], None] = {}
        self._reads_nowait = 0
        self._reads = 0
        self._reads_degraded = 0
        self._shards_damaged = 0

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

    def _read_shard_nowait(
        self, stripe: StripeRecord, place: ShardPlace, start: int, length: int
    ) -> Buffer | None:
        known = self._heads.get(place)
        if known is None or known.head.stripe_id != stripe.stripe_id:
            return None
        file = known.volume.file
        if file is None:
            return None
        return read_range_nowait(file, known.head, known.payload_at, start, length)

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
            data = await self._read_range(stripe, ranges[0], with_neighbours=with_neighbours)
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
            if self._files.get(place.volume_id) is None:
                continue
            try:
                await self._workers.run(self._fetch, stripe, place, 0, stripe.shard_bytes)
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
                parts[number] = await self._read_range(stripe, ranges[number])
            except CiaosError as error:
                errors[number] = error

        async with trio.open_nursery() as nursery:
            for number in range(len(ranges)):
                nursery.start_soon(read_one, number)
        if errors:
            raise errors[min(errors)]
        return parts

    async def _read_range(
        self, stripe: StripeRecord, wanted: ShardRange, *, with_neighbours: bool = False
    ) -> Buffer:
        """One range of one data shard, decoded from others if need be."""
        place = place_of(stripe, wanted.shard_index)
        is_damaged = True
        if place is not None and self._files.get(place.volume_id) is not None:
            # A deadline for slow drives belongs here: after it the range is decoded from others.
            try:
                return await self._workers.run(
                    self._fetch, stripe, place, wanted.start, wanted.length, with_neighbours
                )
            except (ShardDamagedError, StoreError, DriveGoneError, OSError) as error:
                is_damaged = self._report(stripe, place, error)
        elif place is not None:
            is_damaged = self._report(stripe, place, _no_volume(place))
        self._reads_degraded += 1
        return await self._decode(stripe, wanted, 0 if is_damaged else 1)

    def _fetch(
        self, stripe: StripeRecord, place: ShardPlace, start: int, length: int, with_neighbours: bool = False
    ) -> memoryview:
        """Blocking. A verified range of one shard; `with_neighbours` starts reading what lies around it."""
        with self._files.reading(place.volume_id) as (volume, file):
            known = self._heads.get(place)
            if known is None or known.volume is not volume or known.head.stripe_id != stripe.stripe_id:
                known = self._known_shard(stripe, place, volume, file)
            if with_neighbours:
                window = (known.payload_at + start) // NEIGHBOURS_BYTES * NEIGHBOURS_BYTES
                file.advise(window, NEIGHBOURS_BYTES)
            return read_range(file, known.head, start, length)

    def _known_shard(
        self, stripe: StripeRecord, place: ShardPlace, volume: VolumeFile, file: DriveFile
    ) -> KnownShard:
        """Blocking. Read the head at `place`, which must be this stripe's in every particular, and keep
        it."""
        head = read_head(
            file,
            self._files.store_id,
            place.volume_id,
            place.offset,
            stripe.shard_bytes,
            kind=NeedleKind.SHARD,
            stripe_id=stripe.stripe_id,
            shard_index=place.shard_index,
        )
        found = (head.stripe_kind, head.data_count, head.parity_count, head.payload_bytes)
        if found != (stripe.kind, stripe.data_count, stripe.parity_count, stripe.payload_bytes):
            raise ShardDamagedError(
                f"The needle at byte {place.offset} of volume {place.volume_id:016x} says {found}, "
                f"which is not what stripe {stripe.stripe_id} is."
            )
        known = KnownShard(volume, head, head.offset + head.payload_start)
        self._heads.put(place, known)
        return known

    # From other shards

    async def _decode(self, stripe: StripeRecord, wanted: ShardRange, unreachable: int) -> Buffer:
        """A range of one shard from the same range of others. `unreachable` is 1 if it may be whole where it
        is.

        When the shard's own head is known the range is widened to whole blocks, and the result checked as if
        it had been read.
        """
        place = place_of(stripe, wanted.shard_index)
        known = None if place is None else self._heads.get(place)
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
                good[place.shard_index] = await self._workers.run(self._fetch, stripe, place, start, length)
            except (ShardDamagedError, StoreError, DriveGoneError, OSError) as error:
                unreachable += not self._report(stripe, place, error)

        while len(good) < stripe.data_count and waiting:
            round_: list[ShardPlace] = []
            while waiting and len(good) + len(round_) < stripe.data_count:
                place = waiting.pop()
                if self._files.get(place.volume_id) is None:
                    unreachable += not self._report(stripe, place, _no_volume(place))
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

    def _report(self, stripe: StripeRecord, place: ShardPlace, error: Exception) -> bool:
        """Tell of a shard that did not come. True when it is damaged, False when its drive is away or
        failing."""
        if isinstance(error, DriveGoneError) and not self._all_present():
            return False
        key = (stripe.stripe_id, place.shard_index)
        if key not in self._reported:
            self._reported[key] = None
            if len(self._reported) > REPORTS_MAX:
                del self._reported[next(iter(self._reported))]
            log.warning(
                "shard %d of stripe %d is not readable: %s", place.shard_index, stripe.stripe_id, error
            )
        self._shards_damaged += 1
        self._on_damage(stripe.stripe_id, place.shard_index, str(error))
        return isinstance(error, (DamagedError, DriveGoneError, FileNotFoundError))

    # The cache

    def advise(self, stripe: StripeRecord) -> None:
        """See ChunkStore.advise. Brings the heads in too, so that the reads to come need no thread."""
        places = stripe.places[: stripe.data_count]
        for look in (self._ask_for, self._learn_head):
            for place in places:
                try:
                    with self._files.reading(place.volume_id) as (volume, file):
                        look(stripe, place, volume, file)
                except (CiaosError, OSError) as error:
                    # The read that comes will meet it, and knows what to do.
                    log.debug("advice for stripe %d: %s", stripe.stripe_id, error)

    def _ask_for(self, stripe: StripeRecord, place: ShardPlace, _: VolumeFile, file: DriveFile) -> None:
        file.advise(place.offset, needle_bytes_for(stripe.shard_bytes))

    def _learn_head(
        self, stripe: StripeRecord, place: ShardPlace, volume: VolumeFile, file: DriveFile
    ) -> None:
        if self._heads.get(place) is None:
            self._known_shard(stripe, place, volume, file)

    def wrote(self, written: Sequence[Written]) -> None:
        """Shards were just written: their heads are known without reading them."""
        for place, head, _ in written:
            volume = self._files.get(place.volume_id)
            if volume is not None and place.shard_index < head.data_count:
                self._heads.put(place, KnownShard(volume, head, head.offset + head.payload_start))

    def forget(self, stripe: StripeRecord) -> None:
        """The stripe is gone or has moved."""
        for place in stripe.places:
            self._heads.drop(place)

    def statistics(self) -> ReaderStatistics:
        return ReaderStatistics(
            self._reads_nowait, self._reads, self._reads_degraded, self._shards_damaged, len(self._heads)
        )


def _reconstruct(stripe: StripeRecord, good: dict[int, memoryview], wanted: int) -> Buffer:
    chosen: dict[int, Buffer] = dict(good)
    return reconstruct(chosen, stripe.data_count, stripe.parity_count, [wanted])[wanted]


def _no_volume(place: ShardPlace) -> DriveGoneError:
    return DriveGoneError(f"Volume {place.volume_id:016x} is on no drive that is there.")
