"""Durations counted in buckets at most a quarter of their size wide: what latencies are kept and sent in. Pure.

A bucket is known by its index: the three highest bits of the nanoseconds and how many bits there are below them.
So four buckets span each doubling, at any size, and finding one is two shifts.
"""

from __future__ import annotations

from collections.abc import Mapping

BUCKETS = 160
"""Up to half an hour; what lasts longer is counted in the last one."""


def bucket_of(duration_ns: int) -> int:
    """The index of the bucket that `duration_ns` (0 or more) falls into."""
    shift = duration_ns.bit_length() - 3
    if shift <= 0:
        return min(max(duration_ns, 0), 7)
    return min((shift << 2) + (duration_ns >> shift), BUCKETS - 1)


def lower_ns(bucket: int) -> int:
    """The least duration in a bucket; that of the next one ends it."""
    if bucket < 8:
        return bucket
    return (4 + (bucket & 3)) << ((bucket >> 2) - 1)


def quantile_ns(counts: Mapping[int, int], share: float) -> float | None:
    """The duration that `share` of all that were counted are below, by buckets; None when nothing was counted.

    Within a bucket they are taken to lie evenly.
    """
    total = sum(counts.values())
    if not total:
        return None
    wanted = share * total
    seen = 0
    for bucket in sorted(counts):
        count = counts[bucket]
        if count and seen + count >= wanted:
            low, high = lower_ns(bucket), lower_ns(bucket + 1)
            return low + (high - low) * max(0.0, (wanted - seen) / count)
        seen += count
    return float(lower_ns(max(counts) + 1))
