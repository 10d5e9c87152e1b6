"""Durations fall into buckets that follow one on the other, and quantiles come back about as wide as a bucket."""

from __future__ import annotations

import random

import pytest

from ciaosfs.base.histogram import BUCKETS, bucket_of, lower_ns, quantile_ns


def test_each_bucket_ends_where_the_next_begins() -> None:
    for bucket in range(BUCKETS - 1):
        low, high = lower_ns(bucket), lower_ns(bucket + 1)
        assert low < high
        assert bucket_of(low) == bucket_of(high - 1) == bucket
        assert bucket < 8 or (high - low) * 4 <= low


@pytest.mark.parametrize("duration_ns", [lower_ns(BUCKETS - 1), 10**15, 10**30])
def test_what_is_longer_falls_into_the_last(duration_ns: int) -> None:
    assert bucket_of(duration_ns) == BUCKETS - 1


def test_a_clock_that_steps_back_does_no_harm() -> None:
    assert bucket_of(-5) == 0


def test_quantiles_are_near_the_true_ones() -> None:
    source = random.Random(4)
    durations = sorted(int(source.lognormvariate(11, 1.5)) for _ in range(10_000))
    counts: dict[int, int] = {}
    for duration in durations:
        counts[bucket_of(duration)] = counts.get(bucket_of(duration), 0) + 1
    for share in (0.01, 0.5, 0.9, 0.99, 0.999):
        true = durations[int(share * len(durations))]
        found = quantile_ns(counts, share)
        assert found is not None and abs(found - true) <= 0.25 * true


def test_quantiles_of_nothing_and_of_one() -> None:
    assert quantile_ns({}, 0.5) is None
    assert quantile_ns({3: 0}, 0.5) is None
    found = quantile_ns({bucket_of(1000): 1}, 1.0)
    assert found is not None and 1000 <= found <= 1250
