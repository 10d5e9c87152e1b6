"""Shards of one stripe written anew on other drives: those that are lost, and those that are to lie elsewhere.

What goes in was verified, in full: from a damaged shard the decoder makes garbage without a word. A shard that is whole
where it lies is copied; the others are decoded from `data_count` good ones. The new needle is one of the same stripe
and index in another place: which of the two counts, the metadata says, and that is the caller's to change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import DamagedError, DriveGoneError, NoSpaceError, StoreError, StripeLostError
from ciaosfs.base.types import Buffer, ShardPlace, StripeRecord, VolumeKind
from ciaosfs.codec.erasure import reconstruct
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.drive.calls import DriveCalls
from ciaosfs.stripe.choosing import Chooser
from ciaosfs.stripe.damage import DamageReports, no_volume
from ciaosfs.stripe.durability import Durability
from ciaosfs.stripe.fetching import ShardFetcher
from ciaosfs.stripe.layout import Shape, place_of
from ciaosfs.stripe.spreading import NeedleSpec, Shard, Spreader, Written
from ciaosfs.volume.driveset import DriveSet


class Rebuilder:
    """Owns nothing. All methods are for the loop."""

    def __init__(
        self,
        drives: DriveSet,
        shards: ShardFetcher,
        chooser: Chooser,
        spreader: Spreader,
        durability: Durability,
        damage: DamageReports,
        calls: DriveCalls,
    ) -> None:
        self._drives = drives
        self._shards = shards
        self._chooser = chooser
        self._spreader = spreader
        self._durability = durability
        self._damage = damage
        self._calls = calls

    async def rebuild(
        self, record: StripeRecord, shard_indexes: Collection[int], avoid: Collection[int]
    ) -> tuple[StripeRecord, Sequence[Written]]:
        """See ChunkStore.rebuild."""
        holders = self._holders(record, shard_indexes)
        exclude = holders | set(avoid)
        indexes, shape = self._plan(record, sorted(shard_indexes), exclude, holders)
        good = await self._gather(record, indexes)
        is_log = shape.volume_kind is VolumeKind.LOG
        chooser = self._chooser.for_hot if is_log else self._chooser.for_data

        def choose(count: int, tried: Collection[int], beside: Collection[int]) -> list[int]:
            now = self._holders(record, shard_indexes)  # a drive with one of them may have come back since
            return chooser(shape, count, {*tried, *now}, {*beside, *now})

        spec = NeedleSpec(NeedleKind.SHARD, record.stripe_id, record.kind, shape, tuple(indexes))
        load = _Reconstruction(record, good, indexes)
        written = await self._spreader.spread(spec, load, choose, exclude, holders)
        # No await from here: the sync that covers the shards must know the stripe they belong to.
        places = {place.shard_index: place for place in record.places}
        places |= {needle.place.shard_index: needle.place for needle in written}
        rebuilt = replace(record, places=tuple(places[index] for index in sorted(places)))
        self._durability.stripe_written(rebuilt)
        return rebuilt, written

    def can_place(self, record: StripeRecord, shard_indexes: Collection[int]) -> bool:
        """Whether there is a drive for any of these shards now, full or not."""
        exclude = self._holders(record, shard_indexes)
        return any(slot.number not in exclude for slot in self._drives.usable())

    def _holders(self, record: StripeRecord, shard_indexes: Collection[int]) -> set[int]:
        """The drives that are there and hold the stripe's other shards. What is on one that is away is not known."""
        volumes = (
            self._shards.files.get(place.volume_id)
            for place in record.places
            if place.shard_index not in shard_indexes
        )
        return {volume.drive_number for volume in volumes if volume is not None}

    def _plan(
        self,
        record: StripeRecord,
        indexes: Sequence[int],
        exclude: Collection[int],
        holders: Collection[int],
    ) -> tuple[Sequence[int], Shape]:
        """As many of the shards as find room, data first, and where: as the writer of such a stripe would choose."""
        data = Shape(
            record.data_count,
            record.parity_count,
            record.payload_bytes,
            record.shard_bytes,
            VolumeKind.DATA,
        )
        if record.data_count == 1 and record.payload_bytes <= limits.HOT_PAYLOAD_BYTES_MAX:
            hot = replace(data, volume_kind=VolumeKind.LOG)
            if len(self._chooser.for_hot(hot, len(indexes), exclude, holders)) == len(indexes):
                return indexes, hot
        found = len(self._chooser.for_data(data, len(indexes), exclude, holders))
        if found:
            return indexes[:found], data
        if any(slot.number not in exclude for slot in self._drives.usable()):
            raise NoSpaceError(
                f"No drive has room for a shard of stripe {record.stripe_id}: delete something or add a drive."
            )
        raise DriveGoneError(
            f"Every drive that can be written to has a shard of stripe {record.stripe_id}: add a drive."
        )

    async def _gather(self, record: StripeRecord, indexes: Sequence[int]) -> dict[int, Buffer]:
        """The wanted shards that are whole, and `data_count` whole shards if any of them is not.

        StripeLostError when there are not so many, DriveGoneError when there may be.
        """
        good: dict[int, Buffer] = {}
        unreachable = 0
        own = [place for place in record.places if place.shard_index in indexes]
        others = [place for place in record.places if place.shard_index not in indexes]
        unreachable += await self._fetch(record, own, good)
        if all(index in good for index in indexes):
            return good
        while len(good) < record.data_count and others:
            count = record.data_count - len(good)
            unreachable += await self._fetch(record, others[:count], good)
            others = others[count:]
        if len(good) >= record.data_count:
            return good
        sentence = (
            f"Stripe {record.stripe_id} needs {record.data_count} shards and {len(good)} can be read in full"
        )
        if len(good) + unreachable >= record.data_count:
            raise DriveGoneError(f"{sentence}: look after the drives that are absent or failing.")
        raise StripeLostError(f"{sentence}.")

    async def _fetch(
        self, record: StripeRecord, places: Sequence[ShardPlace], good: dict[int, Buffer]
    ) -> int:
        """Read whole shards, at the same time; returns how many may be whole on drives that are away or failing."""
        unreachable = 0

        async def fetch_one(place: ShardPlace) -> None:
            nonlocal unreachable
            volume = self._shards.files.get(place.volume_id)
            if volume is None:
                unreachable += not self._damage.report(record, place, no_volume(place))
                return
            try:
                good[place.shard_index] = await self._calls.call(
                    volume.drive_number, self._shards.fetch, record, place, 0, record.shard_bytes
                )
            except (DamagedError, StoreError, DriveGoneError, OSError) as error:
                unreachable += not self._damage.report(record, place, error)

        async with trio.open_nursery() as nursery:
            for place in places:
                nursery.start_soon(fetch_one, place)
        self._shards.files.trim()
        return unreachable


class _Reconstruction:
    """What is to be written: the wanted shards, as read or made from the others."""

    def __init__(self, record: StripeRecord, good: Mapping[int, Buffer], indexes: Sequence[int]) -> None:
        self._record = record
        self._good = good
        self._indexes = indexes

    def shards(self) -> Mapping[int, Shard]:
        """Blocking: decodes."""
        record = self._record
        if all(index in self._good for index in self._indexes):
            return {index: [self._good[index]] for index in self._indexes}
        made = reconstruct(self._good, record.data_count, record.parity_count, self._indexes)
        return {index: [shard] for index, shard in made.items()}


def replaced_places(before: StripeRecord, after: StripeRecord) -> list[tuple[ShardPlace | None, ShardPlace]]:
    """What `rebuild` changed: for each shard that was written its former place, None if it had none, and the new one."""
    pairs = [(place_of(before, place.shard_index), place) for place in after.places]
    return [(former, place) for former, place in pairs if former != place]
