"""How long a drive is waited for, and when it is read round: the figures a drive gives of itself, and its neighbours."""

from __future__ import annotations

import random

import pytest

from ciaosfs.base import limits
from ciaosfs.drive.patience import (
    BOUND_EVERY,
    MARGIN,
    PEERS_MARGIN,
    SMALL_BYTES_MAX,
    DecayingQuantile,
    HedgeBudget,
    Patience,
    bound_all,
    bound_s,
    usual_of_peers,
)


def fed(*seconds: float) -> Patience:
    patience = Patience()
    for value in seconds:
        patience.answered(4096, value)
    return patience


@pytest.mark.parametrize("seed", range(5))
def test_about_one_answer_in_twenty_is_above_the_estimate(seed: int) -> None:
    dice = random.Random(seed)
    estimate = DecayingQuantile()
    for _ in range(2000):
        estimate.observe(dice.lognormvariate(-6, 0.5))
    above = 0
    for _ in range(4000):
        observed = dice.lognormvariate(-6, 0.5)
        assert estimate.value is not None
        above += observed > estimate.value
        estimate.observe(observed)
    assert 0.03 < above / 4000 < 0.08


def test_the_estimate_follows_a_drive_that_becomes_slow_within_a_dozen_answers() -> None:
    estimate = DecayingQuantile()
    for _ in range(100):
        estimate.observe(0.001)
    answers = 0
    while estimate.value is not None and estimate.value < 0.010:
        estimate.observe(0.1)
        answers += 1
    assert answers <= 15


def test_the_bound_is_a_multiple_within_floor_cap_and_what_the_others_need() -> None:
    assert bound_s(None, None) == limits.READ_LATE_S_FIRST
    assert bound_s(0.0001, None) == limits.READ_LATE_S_MIN
    assert bound_s(0.02, None) == MARGIN * 0.02
    assert bound_s(30.0, None) == limits.READ_LATE_S_MAX
    assert bound_s(0.1, 0.01) == PEERS_MARGIN * 0.01
    assert bound_s(None, 0.002) == PEERS_MARGIN * 0.002


def test_a_drive_that_was_always_slow_is_late_by_the_measure_of_its_neighbours() -> None:
    drives = [fed(*[0.002] * 50) for _ in range(5)] + [fed(*[0.1] * 50)]
    bound_all(drives)
    assert drives[5].bound_s(4096) == pytest.approx(PEERS_MARGIN * drives[0].usual_s[0])  # type: ignore[operator]
    assert drives[5].bound_s(4096) < 0.1
    large = drives[5].bound_s(SMALL_BYTES_MAX + 1)
    assert large == limits.READ_LATE_S_FIRST, "of large reads nothing is known yet"


def test_bounds_are_due_every_so_many_answers_and_at_the_first() -> None:
    patience = Patience()
    due = [patience.answered(1, 0.001) for _ in range(2 * BOUND_EVERY + 1)]
    assert [at for at, is_due in enumerate(due) if is_due] == [0, BOUND_EVERY, 2 * BOUND_EVERY]


def test_the_middle_neighbour_is_known_when_most_are() -> None:
    assert usual_of_peers([]) is None
    assert usual_of_peers([1.0, None]) is None
    assert usual_of_peers([1.0]) == 1.0
    assert usual_of_peers([3.0, 1.0]) == 1.0
    assert usual_of_peers([9.0, 1.0, 2.0, None]) == 2.0


def test_six_late_reads_in_a_row_make_a_drive_lag_and_eleven_in_time_end_it() -> None:
    patience = Patience()
    for _ in range(5):
        patience.was_late()
    assert not patience.lags
    patience.was_late()
    assert patience.lags
    for _ in range(100):
        patience.was_late()
    for _ in range(10):
        patience.was_in_time()
        assert patience.lags, "what comes and goes is not trusted at once"
    patience.was_in_time()
    assert not patience.lags


def test_a_drive_with_a_hiccup_now_and_then_does_not_lag() -> None:
    patience = Patience()
    for number in range(1000):
        if number % 3:
            patience.was_in_time()
        else:
            patience.was_late()
        assert not patience.lags


def test_hedges_are_a_share_of_the_reads_and_a_burst() -> None:
    budget = HedgeBudget()
    assert [budget.take() for _ in range(limits.HEDGES_BURST_MAX)] == [True] * limits.HEDGES_BURST_MAX
    assert not budget.take()
    taken = 0
    for _ in range(1000):
        budget.read()
        taken += budget.take()
    assert 0.9 * 1000 * limits.HEDGE_SHARE_MAX <= taken <= 1000 * limits.HEDGE_SHARE_MAX
    for _ in range(100_000):
        budget.read()
    taken = 0
    while budget.take():
        taken += 1
    assert taken in (limits.HEDGES_BURST_MAX, limits.HEDGES_BURST_MAX + 1)
