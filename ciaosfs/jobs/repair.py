"""The repair job: every stripe gets back the shards it misses, those that miss most first.

Three sources of work. *Suspects*: a read or a scrub met a shard that did not come. It is looked at again, in full;
what is proved to be damaged is forgotten, as long as enough good shards are left, and rebuilt. If too few shards are
whole, but every range can still be decoded from some, the stripe is copied; if it is one of an image of the metadata,
a new image is written. *Missing*: written while drives were away,
or forgotten. *Given up*: on a drive that has been absent for long.

A stripe for which no drive is left waits: the healer asks again when the drives have changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence

import trio

from ciaosfs.base.errors import CiaosError, StripeLostError
from ciaosfs.base.types import ShardPlace, StripeKind, StripeRecord
from ciaosfs.fs.parts import Parts
from ciaosfs.jobs.job import Progress
from ciaosfs.jobs.suspects import Suspects
from ciaosfs.meta.repairs import BEFORE_ALL, Lacking, count_lacking, lacking_stripes
from ciaosfs.stripe.verifying import Condition, Finding

log = logging.getLogger(__name__)

PAGE_STRIPES = 1024
AT_ONCE = 4
"""Stripes rebuilt at the same time: reading, coding and writing overlap."""


class RepairJob:
    """One pass. `given_up` tells which drives count as lost."""

    def __init__(self, parts: Parts, suspects: Suspects, given_up: Callable[[], frozenset[int]]) -> None:
        self._parts = parts
        self._suspects = suspects
        self._given_up = given_up
        self._done = 0
        self._shards_written = 0
        self._stripes_copied = 0
        self._images_asked = 0
        self._waiting = 0
        self._lost = 0
        self._obstacle = ""

    async def run(self, progress: Progress) -> str:
        """See `job.Job`."""
        await self._commit_first()
        given_up = self._given_up()
        total = len(self._suspects) + await self._parts.workers.run(self._count, given_up)
        progress.note(done=0, total=total, unit="stripes")
        after: Lacking | None = BEFORE_ALL
        while after is not None:
            await self._look_at_suspects(progress)
            after = await self._mend_page(progress, given_up, after)
        await self._look_at_suspects(progress)
        if self._shards_written or self._stripes_copied:
            self._parts.committer.demand()
        return self._sentence()

    async def _commit_first(self) -> None:
        """What misses shards is looked up in the last commit. One that cannot be made now is no reason not to repair."""
        try:
            await self._parts.committer.sync()
        except CiaosError as error:
            log.info("repair goes by an older commit: %s", error)

    def _count(self, given_up: Collection[int]) -> int:
        with self._parts.meta.reader() as reader:
            return count_lacking(reader, given_up)

    def _page(self, given_up: Collection[int], after: Lacking) -> list[Lacking]:
        with self._parts.meta.reader() as reader:
            return lacking_stripes(reader, given_up, after, PAGE_STRIPES)

    async def _mend_page(
        self, progress: Progress, given_up: Collection[int], after: Lacking
    ) -> Lacking | None:
        """Work off the stripes that come after `after`; returns the last of them, None when there was none."""
        page = await self._parts.workers.run(self._page, given_up, after)
        if not page:
            return None
        volumes = {row.volume_id for row in self._parts.meta.volumes.all() if row.drive in given_up}
        for at in range(0, len(page), AT_ONCE):
            group = page[at : at + AT_ONCE]
            async with trio.open_nursery() as nursery:
                for lacking in group:
                    nursery.start_soon(self._mend_lacking, lacking.stripe_id, volumes)
            self._advance(progress, len(group))
            is_urgent = group[0].missing >= group[0].parity_count
            await progress.rest(1.0 if is_urgent else None)
            if len(self._suspects):
                await self._look_at_suspects(progress)
        return page[-1]

    async def _mend_lacking(self, stripe_id: int, volumes: Collection[int]) -> None:
        """Rebuild what a stripe misses, and what it has in `volumes`."""
        record = self._parts.meta.stripes.load(stripe_id)
        if record is not None:
            kept = {p.shard_index for p in record.places if p.volume_id not in volumes}
            await self._mend(record, [index for index in range(_width(record)) if index not in kept])

    async def _mend(self, record: StripeRecord, indexes: Sequence[int]) -> None:
        """Rebuild these shards, as far as the drives allow."""
        if not indexes:
            return
        if not self._parts.chunks.can_place(record, indexes):
            self._waiting += 1
            self._obstacle = "every drive that can be written to has a shard of theirs"
            return
        try:
            written = await self._parts.mender.mend(record.stripe_id, indexes)
        except StripeLostError:
            self._suspects.note(record.stripe_id, indexes[0], "too few good shards")
        except (CiaosError, OSError) as error:
            self._waiting += 1
            self._obstacle = str(error).rstrip(".")
        else:
            self._shards_written += written

    async def _look_at_suspects(self, progress: Progress) -> None:
        while (stripe_id := self._suspects.take()) is not None:
            await self._look_at(stripe_id)
            self._advance(progress, 1)
            await progress.rest()

    async def _look_at(self, stripe_id: int) -> None:
        """Verify all shards of a stripe, and rebuild those that are not whole."""
        record = self._parts.meta.stripes.load(stripe_id)
        if record is None or not self._parts.mender.is_live(stripe_id):
            return
        self._parts.reclaimer.pin(stripe_id)
        try:
            found = await self._parts.chunks.verify([(record, place) for place in record.places])
        finally:
            self._parts.reclaimer.unpin(stripe_id)
        by_place = dict(zip(record.places, found, strict=True))
        whole = sum(finding.condition is Condition.WHOLE for finding in found)
        damaged = [place for place, finding in by_place.items() if self._is_damaged(place, finding)]
        ill = [place for place, finding in by_place.items() if finding.condition is Condition.UNREADABLE]
        if not damaged and not ill:
            return
        if whole >= record.data_count:
            for place in damaged:
                log.warning("%s", self._told(record, place, by_place[place]))
            await self._forget(record, damaged)
            fresh = self._parts.meta.stripes.load(stripe_id)
            if fresh is not None:
                kept = {place.shard_index for place in fresh.places if place not in ill}
                await self._mend(fresh, [index for index in range(_width(fresh)) if index not in kept])
        elif record.kind is StripeKind.IMAGE:
            log.warning(
                "stripe %d of an image of the metadata has too few whole shards: a new image is written",
                stripe_id,
            )
            self._parts.imager.demand()
            self._images_asked += 1
        elif await self._parts.compactor.rewrite(stripe_id):
            self._stripes_copied += 1
        else:
            self._suspects.put_off(stripe_id)
            self._lost += 1
            log.error(
                "stripe %d has %d whole shards and needs %d: it waits for drives to come back",
                stripe_id,
                whole,
                record.data_count,
            )

    def _is_damaged(self, place: ShardPlace, finding: Finding) -> bool:
        """Proved to be damaged, or in a volume that is missing on a drive that is there."""
        if finding.condition is not Condition.AWAY:
            return finding.condition is Condition.DAMAGED
        return is_volume_lost(self._parts, place.volume_id)

    def _told(self, record: StripeRecord, place: ShardPlace, finding: Finding) -> str:
        return f"shard {place.shard_index} of stripe {record.stripe_id} is rebuilt: {finding.reason}"

    async def _forget(self, record: StripeRecord, places: Sequence[ShardPlace]) -> None:
        """What is damaged counts as missing.

        It is not punched: in a volume that was cut off, something else may be written in its place by now.
        """
        await self._parts.gate.wait_open()
        for place in places:
            self._parts.meta.stripes.forget_shard(record.stripe_id, place)

    def _advance(self, progress: Progress, count: int) -> None:
        self._done += count
        progress.note(done=self._done)

    def _sentence(self) -> str:
        parts = [f"{self._shards_written} shards were written anew"]
        if self._stripes_copied:
            parts.append(f"{self._stripes_copied} stripes were copied")
        if self._images_asked:
            parts.append("the metadata is written as a new image")
        if self._waiting:
            parts.append(f"{self._waiting} stripes wait ({self._obstacle})")
        if self._lost:
            parts.append(f"{self._lost} stripes have too few good shards")
        return "; ".join(parts) + "."


def is_volume_lost(parts: Parts, volume_id: int) -> bool:
    """Whether a volume is missing although its drive is there. A drive that does not answer still has its volumes."""
    volume = parts.meta.volumes.load(volume_id)
    return (
        volume is not None
        and parts.chunks.is_there(volume.drive)
        and parts.chunks.files.get(volume_id) is None
    )


def _width(record: StripeRecord) -> int:
    return record.data_count + record.parity_count
