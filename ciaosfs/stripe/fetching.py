"""Verified ranges of single shards from the drive they lie on, and the heads that make the next one quick."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError, ShardDamagedError
from ciaosfs.base.types import Buffer, ShardPlace, StripeRecord
from ciaosfs.codec.needle import NeedleKind, needle_bytes_for
from ciaosfs.drive.interface import DriveFile
from ciaosfs.drive.tours import Step
from ciaosfs.stripe.heads import HeadCache, KnownShard
from ciaosfs.stripe.spreading import Written
from ciaosfs.volume.files import VolumeFile, VolumeFiles
from ciaosfs.volume.reader import read_head, read_range, read_range_into, read_range_nowait

log = logging.getLogger(__name__)

NEIGHBOURS_BYTES = 256 * limits.KIB
"""Read around a small file: those that were written together are often read together, and share a stripe. Little enough
not to drown a reader who takes one file here and one there out of millions."""


_Look = Callable[[StripeRecord, ShardPlace, VolumeFile, DriveFile], None]


class ShardFetcher:
    """Owns the cache of heads. `fetch` blocks and is for any thread, the rest is for the loop."""

    def __init__(self, files: VolumeFiles) -> None:
        self.files = files
        self._heads = HeadCache()

    def read_nowait(self, stripe: StripeRecord, place: ShardPlace, start: int, length: int) -> Buffer | None:
        """A verified range of one shard if it is in the page cache and the head known; else None."""
        known = self._heads.get(place)
        if known is None or known.head.stripe_id != stripe.stripe_id:
            return None
        file = known.volume.file
        if file is None:
            return None
        return read_range_nowait(file, known.head, known.payload_at, start, length)

    def known(self, place: ShardPlace) -> KnownShard | None:
        """The head at `place`, if it was read lately."""
        return self._heads.get(place)

    def fetch(
        self, stripe: StripeRecord, place: ShardPlace, start: int, length: int, with_neighbours: bool = False
    ) -> memoryview:
        """A verified range of one shard; `with_neighbours` starts reading what lies around it.

        Raises ShardDamagedError, StoreError, DriveGoneError, OSError (FileNotFoundError: the volume is gone).
        """
        with self.files.reading(place.volume_id) as (volume, file):
            known = self._look_up(stripe, place, volume, file)
            if with_neighbours:
                window = (known.payload_at + start) // NEIGHBOURS_BYTES * NEIGHBOURS_BYTES
                file.advise(window, NEIGHBOURS_BYTES)
            return read_range(file, known.head, start, length)

    def fetch_into(self, stripe: StripeRecord, place: ShardPlace, start: int, into: memoryview) -> bool:
        """Whole blocks of one shard from `start` on into a buffer that begins on a page, verified, past the page cache.

        False when the drive can only be read through the page cache. Raises as `fetch`.
        """
        with self.files.reading(place.volume_id) as (volume, file):
            known = self._look_up(stripe, place, volume, file)
            return read_range_into(file, known.head, start, into)

    def _look_up(
        self, stripe: StripeRecord, place: ShardPlace, volume: VolumeFile, file: DriveFile
    ) -> KnownShard:
        """Blocking. The head at `place`, read if it is not known."""
        known = self._heads.get(place)
        if known is None or known.volume is not volume or known.head.stripe_id != stripe.stripe_id:
            known = self._known_shard(stripe, place, volume, file)
        return known

    def _known_shard(
        self, stripe: StripeRecord, place: ShardPlace, volume: VolumeFile, file: DriveFile
    ) -> KnownShard:
        """Blocking. Read the head at `place`, which must be this stripe's in every particular, and keep
        it."""
        head = read_head(
            file,
            self.files.store_id,
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
        self._heads.learn(place, known)
        return known

    def advice(self, stripe: StripeRecord, is_avoided: Callable[[int], bool]) -> list[Step]:
        """Calls that ask for the data shards and bring the heads in too, so that the reads to come need no thread.

        Drives that `is_avoided` says to leave alone are passed over. None of the calls raises.
        """
        steps = []
        for look in (self._ask_for, self._learn_head):
            for place in stripe.places[: stripe.data_count]:
                volume = self.files.get(place.volume_id)
                if volume is not None and not is_avoided(volume.drive_number):
                    steps.append(Step(volume.drive_number, partial(self._advise, look, stripe, place)))
        return steps

    def _advise(self, look: _Look, stripe: StripeRecord, place: ShardPlace) -> None:
        """Blocking."""
        try:
            with self.files.reading(place.volume_id) as (volume, file):
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
            volume = self.files.get(place.volume_id)
            if volume is not None and place.shard_index < head.data_count:
                self._heads.put(place, KnownShard(volume, head, head.offset + head.payload_start))

    def forget(self, stripe: StripeRecord) -> None:
        """The stripe is gone or has moved."""
        for place in stripe.places:
            self._heads.drop(place)

    @property
    def heads_cached(self) -> int:
        return len(self._heads)

    @property
    def heads_learnt(self) -> int:
        return self._heads.learnt
