"""The one door to the wall clock, and the identifiers made from it."""

from __future__ import annotations

import time


def now_ns() -> int:
    """Wall-clock time in nanoseconds since the epoch."""
    return time.time_ns()


def monotonic_s() -> float:
    """Monotonic seconds, for durations."""
    return time.monotonic()


class IdSource:
    """Identifiers for stripes and volumes: 63-bit, rising, never given twice for one store.

    A crash may forget commits in which ids were used, and a drive may come back with needles of that forgotten
    time. So each opening of a store starts above the wall clock in milliseconds shifted left by 21 bits and
    above the highest id the metadata knows: an id names one content for ever.
    """

    def __init__(self, highest_known: int) -> None:
        self._next = max(highest_known + 1, (time.time_ns() // 1_000_000) << 21)

    @property
    def next_id(self) -> int:
        """What `take` would return: everything that was ever given is lower."""
        return self._next

    def take(self) -> int:
        """Return the next identifier."""
        taken = self._next
        self._next += 1
        return taken

    def raise_above(self, known: int) -> None:
        """Never give `known` or anything below it: a clock that was set back must not bring ids back."""
        self._next = max(self._next, known + 1)
