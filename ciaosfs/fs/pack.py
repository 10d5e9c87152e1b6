"""Small stripes are packed together: fresh replicated ones into k+m, small coded ones into larger ones.

An fsync of little data writes a *hot* stripe, 1+m copies in the log volumes, because that is one sync. Copies take
twice the room of shards and keep their log volume from being collected, so after a few seconds, or when there are some MiB
of them, what is still live is packed into one k+m stripe. When many small k+m stripes have come together that way they are
packed again, into one that is no longer small: each byte is copied two or three times at most.

Whatever dies before its turn was never copied: an editor's or a database's hot pages mostly do.
"""

from __future__ import annotations

from collections.abc import Sequence

from ciaosfs.base import clock, limits
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.merge import Merger
from ciaosfs.meta import reports
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.reports import SmallStripe


def plan_pack(stripes: Sequence[SmallStripe], now_ms: int) -> list[int]:
    """Which of the small stripes (oldest first) to merge now: at most a stripe's worth, none when it is too early."""
    hot = [stripe for stripe in stripes if stripe.is_hot]
    if hot:
        age_s = (now_ms - clock.made_ms(hot[0].stripe_id)) / 1000
        if age_s >= limits.PACK_AGE_S or sum(stripe.live_bytes for stripe in hot) >= limits.PACK_HOT_BYTES:
            return _first(hot)
    # What has much in it is short because that compressed well. Packed with others it would be as short again.
    cold = [
        stripe
        for stripe in stripes
        if not stripe.is_hot and stripe.live_bytes <= limits.SMALL_PAYLOAD_BYTES_MAX
    ]
    if len(cold) >= limits.PACK_SMALL_COUNT or (
        len(cold) > 1 and sum(stripe.live_bytes for stripe in cold) >= limits.PACK_SMALL_BYTES
    ):
        return _first(cold)
    return []


def _first(stripes: Sequence[SmallStripe]) -> list[int]:
    chosen: list[int] = []
    together = 0
    for stripe in stripes:
        together += stripe.live_bytes
        if together > limits.STRIPE_PAYLOAD_BYTES_MAX:
            break
        chosen.append(stripe.stripe_id)
    return chosen


class Packer:
    """Its steps are taken in the background (`housekeeping.work_off`)."""

    def __init__(self, meta: Metadata, merger: Merger, workers: Workers) -> None:
        self._meta = meta
        self._merger = merger
        self._workers = workers
        self._seen: list[SmallStripe] = []
        self._seen_at = -1

    async def step(self) -> bool:
        """Pack some stripes into one. False when it is too early for any, or what there was has been done."""
        sequence = self._meta.state.load().sequence
        if sequence != self._seen_at:
            self._seen = await self._workers.run(self._look)
            self._seen_at = sequence
        chosen = plan_pack(self._seen, clock.now_ns() // 1_000_000)
        if not chosen:
            return False
        taken = set(chosen)
        self._seen = [stripe for stripe in self._seen if stripe.stripe_id not in taken]
        await self._merger.merge(chosen, "pack")
        return True

    def _look(self) -> list[SmallStripe]:
        with self._meta.reader() as reader:
            return reports.small_stripes(reader)
