"""How long to wait for a drive before asking others: learnt from the drive itself. Pure.

A drive's answers are timed, and the time that all but about one in twenty stay below is tracked, for small and for
large reads. A read that takes a multiple of that is *late*; a drive most of whose last reads were late *lags*, and is
read round until it answers in time again. What drives may do in a bad hour must not make waiting unbounded, nor a fast
one make it so short that every hiccup counts: a floor, a cap, and what the other drives of the store need.
"""

from __future__ import annotations

from collections.abc import Sequence

from ciaosfs.base import limits

SMALL_BYTES_MAX = 128 * limits.KIB
"""Reads up to this length take about as long as the device needs to begin; larger ones as long as their bytes."""
QUANTILE = 0.95
STEP = 0.2
"""Each answer moves the estimate by this times 0.05 downwards or 0.95 upwards, in the logarithm: a dozen slow answers
raise it tenfold, hundreds of quick ones bring it back."""
MARGIN = 2.0
"""A read is late after this many times what all but one in twenty take: about one in a hundred is."""
PEERS_MARGIN = 4.0
"""And after this many times what the other drives need, however slow this one always was."""
BOUND_EVERY = 16
"""Answers of one drive after which the bounds follow."""
LAG_WEIGHT = 1 / 8
"""How much the last read counts: six late ones in a row make a drive lag, eleven in time end it."""
LAGS_ABOVE = 0.5
LAGS_NO_MORE_BELOW = 0.25


class DecayingQuantile:
    """The value that `QUANTILE` of the observations stay below, the older ones forgotten. None before the first."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float | None = None

    def observe(self, observed: float) -> None:
        if self.value is None:
            self.value = observed
        elif observed > self.value:
            self.value *= 1 + STEP * QUANTILE
        else:
            self.value *= 1 - STEP * (1 - QUANTILE)


class Patience:
    """What one drive was seen to need for reads, and whether it lags."""

    __slots__ = ("_large", "_lateness", "_small", "_until_bound", "lags", "large_bound_s", "small_bound_s")

    def __init__(self) -> None:
        self._small = DecayingQuantile()
        self._large = DecayingQuantile()
        self._lateness = 0.0
        self._until_bound = 1
        self.small_bound_s = self.large_bound_s = limits.READ_LATE_S_FIRST
        self.lags = False

    def bound_s(self, length: int) -> float:
        """How long a read of `length` bytes may take before it is late."""
        return self.small_bound_s if length <= SMALL_BYTES_MAX else self.large_bound_s

    def answered(self, length: int, seconds: float) -> bool:
        """A read of `length` bytes took `seconds` in the drive, late or not. True when it is time for `bound_all`."""
        (self._small if length <= SMALL_BYTES_MAX else self._large).observe(seconds)
        self._until_bound -= 1
        if self._until_bound:
            return False
        self._until_bound = BOUND_EVERY
        return True

    def was_late(self) -> None:
        """A read has passed its bound."""
        self._lateness += (1 - self._lateness) * LAG_WEIGHT
        if self._lateness > LAGS_ABOVE:
            self.lags = True

    def was_in_time(self) -> None:
        """A read has ended within its bound."""
        if self._lateness:
            self._lateness -= self._lateness * LAG_WEIGHT
            if self._lateness < LAGS_NO_MORE_BELOW:
                self.lags = False

    @property
    def usual_s(self) -> tuple[float | None, float | None]:
        """What all but a few small and large reads take; None when there were none."""
        return self._small.value, self._large.value


def bound_all(drives: Sequence[Patience]) -> None:
    """Set the bounds of all drives of a store by what each needs and what the others do."""
    small = usual_of_peers([drive.usual_s[0] for drive in drives])
    large = usual_of_peers([drive.usual_s[1] for drive in drives])
    for drive in drives:
        drive.small_bound_s = bound_s(drive.usual_s[0], small)
        drive.large_bound_s = bound_s(drive.usual_s[1], large)


def bound_s(usual_s: float | None, peers_s: float | None) -> float:
    """When a read is late on a drive that usually needs `usual_s`, among others that need `peers_s`."""
    bound = limits.READ_LATE_S_FIRST if usual_s is None else MARGIN * usual_s
    if peers_s is not None:
        bound = min(bound, PEERS_MARGIN * peers_s)
    return min(max(bound, limits.READ_LATE_S_MIN), limits.READ_LATE_S_MAX)


def usual_of_peers(values: Sequence[float | None]) -> float | None:
    """The middle one of what the drives of a store need; the lower of two. None when nothing is known of most."""
    known = sorted(value for value in values if value is not None)
    return known[(len(known) - 1) // 2] if 2 * len(known) > len(values) else None


class HedgeBudget:
    """Which share of the reads may be hedged, and how many at once after a quiet time.

    Without it a disk subsystem that is slow as a whole would have to read everything twice.
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = float(limits.HEDGES_BURST_MAX)

    def read(self) -> None:
        """A read begins."""
        if self._left < limits.HEDGES_BURST_MAX:
            self._left += limits.HEDGE_SHARE_MAX

    def take(self) -> bool:
        """Take leave for one hedge; False when there were too many lately."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
