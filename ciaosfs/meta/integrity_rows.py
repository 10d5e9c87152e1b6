"""The invariants of schema.py that no query can see, because they need the hash of a name or the length of a needle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from ciaosfs.meta.dentries import SLOTS, cookie_of
from ciaosfs.meta.placements import Placement, placements
from ciaosfs.meta.reader import Reader

_SEED: Final = "SELECT name_seed FROM state"
_NAMES: Final = "SELECT parent, cookie, name FROM dentries"


def misplaced_names(reader: Reader) -> Iterator[str]:
    """Names that no look-up would find, because their cookie is not that of their hash."""
    seed = next((row[0] for row in reader.rows(_SEED)), None)
    if seed is None:
        return
    for parent, cookie, name in reader.rows(_NAMES):
        if not 0 <= cookie - cookie_of(name, seed) < SLOTS:
            yield f"Name {name!r} in directory {parent} has the cookie {cookie}, which is not of its hash."


def overlapping_needles(reader: Reader) -> Iterator[str]:
    """Two shards that something depends on in one place."""
    before: Placement | None = None
    for shard in placements(reader):
        if before is not None and before.volume_id == shard.volume_id and before.end > shard.offset:
            yield (
                f"Shard {shard.shard_index} of stripe {shard.stripe_id} overlaps shard {before.shard_index} of "
                f"stripe {before.stripe_id} in volume {shard.volume_id:016x}."
            )
        if before is None or before.volume_id != shard.volume_id or shard.end > before.end:
            before = shard


CHECKS: Final[tuple[Callable[[Reader], Iterator[str]], ...]] = (misplaced_names, overlapping_needles)
