"""The one door to the wall clock, and the identifiers made from it."""

from __future__ import annotations

import time

_MS_SHIFT = 21
"""Room for two million ids in a millisecond."""


def now_ns() -> int:
    """Wall-clock time in nanoseconds since the epoch."""
    return time.time_ns()


def monotonic_s() -> float:
    """Monotonic seconds, for durations."""
    return time.monotonic()


def made_ms(identifier: int) -> int:
    """When an id of `IdSource` was given, in milliseconds since the epoch; too late if the clock was set back since."""
    return identifier >> _MS_SHIFT


class IdSource:
    """Identifiers for stripes and volumes: 63-bit, rising, never given twice for one store.

    A crash may forget commits in which ids were used, and a drive may come back with needles of that forgotten
    time. So each opening of a store starts above the wall clock in milliseconds shifted left by 21 bits and
    above the highest id the metadata knows: an id names one content for ever.
    """

    def __init__(self, highest_known: int) -> None:
        self._next = max(highest_known + 1, (now_ns() // 1_000_000) << _MS_SHIFT)

    @property
    def next_id(self) -> int:
        """What `take` would return: everything that was ever given is lower."""
        return self._next

    def take(self) -> int:
        """Return the next identifier: it also says when that was, see `made_ms`."""
        taken = max(self._next, (now_ns() // 1_000_000) << _MS_SHIFT)
        self._next = taken + 1
        return taken

    def raise_above(self, known: int) -> None:
        """Never give `known` or anything below it: a clock that was set back must not bring ids back."""
        self._next = max(self._next, known + 1)
