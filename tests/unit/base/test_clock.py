"""The times that files are stamped with, and the identifiers made from the clock."""

from __future__ import annotations

import time

import pytest

from ciaosfs.base.clock import FileClock, IdSource, made_ms

TICK_NS = 4_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FileClock:
    """It is five ticks and a bit."""
    monkeypatch.setattr(time, "time_ns", lambda: 5 * TICK_NS + 900)
    monkeypatch.setattr(time, "clock_gettime_ns", {5: 5 * TICK_NS}.__getitem__)
    return FileClock()


def test_files_are_stamped_with_the_tick(clock: FileClock) -> None:
    assert clock.now_ns() == 5 * TICK_NS


def test_nor_with_less_than_the_kernel_stamped_since(clock: FileClock) -> None:
    clock.saw(5 * TICK_NS + 300)
    clock.saw(5 * TICK_NS + 200)
    assert clock.now_ns() == 5 * TICK_NS + 300


def test_what_the_kernel_stamped_before_the_clock_was_set_back_counts_no_more(clock: FileClock) -> None:
    clock.saw(5 * TICK_NS + 901)
    assert clock.now_ns() == 5 * TICK_NS


def test_the_real_clock_is_no_further_behind_than_a_few_ticks() -> None:
    before_ns = time.time_ns() - 50_000_000
    assert before_ns <= FileClock().now_ns() <= time.time_ns()


def test_ids_say_when_they_were_given_and_rise_when_the_clock_does_not() -> None:
    source = IdSource(0)
    first, second = source.take(), source.take()
    assert first < second == source.next_id - 1
    assert abs(made_ms(first) - time.time_ns() // 1_000_000) < 60_000
    assert IdSource(1 << 62).take() > 1 << 62
