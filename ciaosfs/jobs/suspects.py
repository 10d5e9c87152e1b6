"""Stripes with shards that were met damaged, by a read or a scrub: they wait for the repair job to look at them."""

from __future__ import annotations

from ciaosfs.base.limits import REPAIR_SUSPECTS_MAX


class Suspects:
    """In memory, bounded: what does not fit, or a restart forgets, is met again. For the loop."""

    def __init__(self) -> None:
        self._waiting: dict[int, None] = {}
        self._put_off: dict[int, None] = {}

    def note(self, stripe_id: int, shard_index: int, reason: str) -> None:
        """A shard was found missing or damaged when it was needed: `ChunkStore.on_damage`."""
        if stripe_id not in self._put_off and len(self._waiting) < REPAIR_SUSPECTS_MAX:
            self._waiting[stripe_id] = None

    def take(self) -> int | None:
        """The stripe that has waited longest; None when none waits."""
        if not self._waiting:
            return None
        stripe_id = next(iter(self._waiting))
        del self._waiting[stripe_id]
        return stripe_id

    def put_off(self, stripe_id: int) -> None:
        """Nothing can be done for the stripe as the drives are now."""
        self._waiting.pop(stripe_id, None)
        if len(self._put_off) < REPAIR_SUSPECTS_MAX:
            self._put_off[stripe_id] = None

    def retry(self) -> None:
        """Drives have come or gone: what was put off is worth another look."""
        self._waiting |= self._put_off
        self._put_off.clear()

    def lost(self) -> list[int]:
        """The stripes for which nothing can be done: they had too few good shards when they were looked at."""
        return list(self._put_off)

    @property
    def count_put_off(self) -> int:
        return len(self._put_off)

    def __len__(self) -> int:
        return len(self._waiting)
