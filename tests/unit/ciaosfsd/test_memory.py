"""Memory goes back when it is quiet, not before, and not again and again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import trio
from ciaosfsd import memory
from trio.testing import MockClock, trio_test

from ciaosfs.base.limits import MIB


class Inline:
    """Threads that are there at once: the clock of the test does not wait for real ones."""

    async def run(self, function: Callable[[], object]) -> object:
        return function()


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@trio_test
async def test_memory_is_given_back_when_there_have_been_no_requests_for_a_while(
    autojump_clock: MockClock,
) -> None:
    requests = 0
    trims: list[int] = []
    workers: Any = Inline()
    long = 2 * max(memory.QUIET_LOOKS) * memory.LOOK_S
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            memory.give_back, workers, lambda: requests, lambda: trims.append(requests), lambda: 0
        )
        for requests in range(1, 50):  # noqa: B007 - the task looks at it
            await trio.sleep(memory.LOOK_S * 0.9)
        assert trims == [], "there were requests all the time"
        await trio.sleep(long)
        assert trims == [49] * len(memory.QUIET_LOOKS)
        requests = 50
        await trio.sleep(long)
        assert trims[len(memory.QUIET_LOOKS) :] == [50] * len(memory.QUIET_LOOKS)
        trims.clear()
        for requests in range(51, 91):  # noqa: B007
            await trio.sleep(memory.LOOK_S * 2.1)
        assert 1 <= len(trims) <= 84 // memory.APART_LOOKS + 1, "a request now and then"
        nursery.cancel_scope.cancel()


@trio_test
async def test_a_process_that_has_grown_large_gives_back_under_a_load_that_never_rests(
    autojump_clock: MockClock,
) -> None:
    requests, resident = 0, memory.HEAVY_BYTES + 1
    trims: list[float] = []
    workers: Any = Inline()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            memory.give_back,
            workers,
            lambda: requests,
            lambda: trims.append(trio.current_time()),
            lambda: resident,
        )
        for requests in range(1, 50):  # noqa: B007 - the task looks at it
            await trio.sleep(memory.LOOK_S * 0.9)
        assert len(trims) > 5
        assert min(b - a for a, b in pairwise(trims)) >= memory.HEAVY_LOOKS * memory.LOOK_S * 0.99
        resident = memory.HEAVY_BYTES
        trims.clear()
        for requests in range(51, 100):  # noqa: B007
            await trio.sleep(memory.LOOK_S * 0.9)
        assert trims == []
        nursery.cancel_scope.cancel()


def test_what_is_freed_between_things_that_live_on_is_given_back() -> None:
    trim = memory.find_trim()
    if trim is None:
        pytest.skip("this C library has no malloc_trim")
    living: list[bytes | bytearray] = []
    for _ in range(1000):
        freed = bytearray(100_000)  # below glibc's threshold for a mapping of its own
        living.append(bytes(1000))
        living.append(freed)
    before = memory.resident_bytes()
    living = [thing for thing in living if len(thing) == 1000]
    del freed
    trim()
    assert memory.resident_bytes() < before - 50 * MIB
