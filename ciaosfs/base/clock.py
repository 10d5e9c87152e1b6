"""The one door to the wall clock, the times of files, and the identifiers made from it."""

from __future__ import annotations

import time

_MS_SHIFT = 21
"""Room for two million ids in a millisecond."""


def now_ns() -> int:
    """Wall-clock time in nanoseconds since the epoch."""
    return time.time_ns()


class FileClock:
    """The clock that the kernel stamps files with: CLOCK_REALTIME_COARSE, which goes in ticks of a few milliseconds.

    The kernel stamps what it writes, the daemon what it makes, renames and deletes. Were the daemon's times exact, a file
    written after another was made could look older, by up to a tick, and make(1) would build again or not at all.
    """

    _COARSE = 5
    """CLOCK_REALTIME_COARSE in <linux/time.h>; the time module does not name it."""

    def __init__(self) -> None:
        self._seen_ns = 0

    def now_ns(self) -> int:
        """The time to stamp files with, in nanoseconds since the epoch."""
        coarse_ns = time.clock_gettime_ns(self._COARSE)
        # Since Linux 6.13 the kernel stamps above the tick when it has given a file on another file system a finer time.
        if coarse_ns < self._seen_ns <= time.time_ns():
            return self._seen_ns
        return coarse_ns

    def saw(self, time_ns: int) -> None:
        """The kernel stamped a file with this."""
        self._seen_ns = max(self._seen_ns, time_ns)


FILES = FileClock()


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
