"""How the loop waits for a request: it spins where that helps, and not where its client needs the processor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from ciaosfsd.fuse.waiting import (
    BRISK_MAX,
    DIGESTING_S,
    LINGER_S,
    SHARED_S,
    SHORT_S,
    SPIN_S,
    UNSPUN_MAX,
    UNSPUN_WAITS,
    Waiting,
)


@pytest.fixture
def silent() -> Iterator[int]:
    """A descriptor on which nothing comes."""
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("is_digesting", [True, False])
def test_who_got_a_listing_is_waited_for_and_that_says_nothing_about_the_pace(
    monkeypatch: pytest.MonkeyPatch, silent: int, *, is_digesting: bool
) -> None:
    comes_s = (SHORT_S + DIGESTING_S) / 2
    assert SPIN_S < SHORT_S < comes_s < DIGESTING_S
    now_s = 0.0

    def tick() -> float:
        nonlocal now_s
        now_s += SPIN_S / 10
        return now_s

    waiting = Waiting(linger_s=1e-6, is_digesting=lambda: is_digesting)
    monkeypatch.setattr("ciaosfsd.fuse.waiting.time", SimpleNamespace(monotonic=tick))
    waiting.adopt(silent)
    waiting._poll = lambda timeout: [(silent, 1)] if now_s >= comes_s else []
    waiting._brisk = BRISK_MAX
    assert waiting.wait() == is_digesting
    assert waiting._brisk == (BRISK_MAX if is_digesting else BRISK_MAX // 2)
    assert (now_s >= comes_s) == is_digesting


class Processors:
    """Time as the loop sees it, and a client that sends its next request when it has worked for a while on a processor:
    on one of its own, or on the loop's when that sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.is_shared = False
        self.polls = 0
        self.work_s = 0.0
        self.done_s = 0.0
        self.waiting = Waiting(idle=self.idle)
        self.waiting._brisk = BRISK_MAX
        self.waiting._poll = self.poll
        self.ahead = 0
        self.ahead_s = 0.0
        monkeypatch.setattr("ciaosfsd.fuse.waiting.time", SimpleNamespace(monotonic=lambda: self.now_s))
        monkeypatch.setattr("ciaosfsd.fuse.waiting.select", SimpleNamespace(select=self.sleep))

    def idle(self) -> bool:
        self.ahead += 1
        self._pass(self.ahead_s, works=not self.is_shared)
        return False

    def poll(self, _: int) -> list[tuple[int, int]]:
        self.polls += 1
        self._pass(2e-6, works=not self.is_shared)
        return [(0, 1)] if self.done_s >= self.work_s else []

    def sleep(self, *_: object) -> tuple[list[int], list[int], list[int]]:
        self._pass(max(0.0, self.work_s - self.done_s) + 1e-6, works=True)
        return [0], [], []

    def _pass(self, time_s: float, *, works: bool) -> None:
        self.now_s += time_s
        self.done_s += time_s if works else 0.0

    def wait(self, work_s: float = 10e-6) -> bool:
        """Have the loop wait for a request; whether it asked for it before it slept."""
        self.work_s, self.done_s, self.polls, self.ahead = work_s, 0.0, 0, 0
        assert self.waiting.wait()
        return self.polls > 0


def test_who_shares_a_processor_with_its_client_does_not_spin_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    processors = Processors(monkeypatch)
    assert all(processors.wait() for _ in range(100)), "the client has another one"
    assert processors.now_s < 100 * 20e-6
    processors.is_shared = True
    for unspun in (UNSPUN_WAITS, 2 * UNSPUN_WAITS, 4 * UNSPUN_WAITS):
        assert processors.wait(), "it is found out that it is shared"
        begun_s = processors.now_s
        for _ in range(unspun):
            assert not processors.wait()
            assert processors.ahead == 0, "work ahead takes time from the client, too"
        assert processors.now_s - begun_s < unspun * 20e-6
    processors.is_shared = False
    assert [processors.wait() for _ in range(100)] == [True] * 100
    processors.is_shared = True
    processors.wait()
    assert [processors.wait() for _ in range(UNSPUN_WAITS + 1)] == [False] * UNSPUN_WAITS + [True]


def test_for_how_long_it_does_not_spin_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    processors = Processors(monkeypatch)
    processors.is_shared = True
    for _ in range(20):
        while not processors.wait():
            pass
    assert [processors.wait() for _ in range(UNSPUN_MAX + 1)] == [False] * UNSPUN_MAX + [True]


def test_a_client_that_thinks_for_longer_than_is_spun_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    processors = Processors(monkeypatch)
    assert all(processors.wait(SPIN_S + 2 * SHARED_S) for _ in range(10))
    waits = [processors.wait(SPIN_S + SHARED_S / 2) for _ in range(10)]
    assert waits == [True, False] * 5, (
        "it looks as if it were held up, and shows in the next wait that it is not"
    )


def test_a_client_that_shared_and_went_leaves_nothing_to_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processors = Processors(monkeypatch)
    processors.is_shared = True
    assert [processors.wait() for _ in range(3)] == [True, False, False]
    processors.is_shared = False
    processors.wait(LINGER_S)
    assert all(processors.wait() for _ in range(10))


def test_work_ahead_that_took_longer_than_is_spun_for_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processors = Processors(monkeypatch)
    processors.ahead_s = SPIN_S
    for _ in range(10):
        processors.wait(SPIN_S + SHARED_S / 2)
        assert processors.ahead > 0
