"""What slow drives cost and where they are, in one value for `ciaosfs status`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ciaosfs.stripe.store import ChunkStoreStatistics


@dataclass(frozen=True, slots=True)
class Slowness:
    """`lagging` and `hanging` are numbers of drives now; the rest are counts since the store was opened: ranges asked
    for from other drives besides, how often those were first, ranges that went round a drive known to lag, and drives
    set aside because they did not answer."""

    lagging: tuple[int, ...] = ()
    hanging: tuple[int, ...] = ()
    hedges: int = 0
    hedges_won: int = 0
    rounds: int = 0
    set_aside: int = 0

    @classmethod
    def of(cls, statistics: ChunkStoreStatistics) -> Slowness:
        reads, calls = statistics.reads, statistics.calls
        return cls(
            calls.lagging, calls.hanging, reads.hedges, reads.hedges_won, reads.rounds, calls.set_aside
        )
