"""Workers: what crosses between loop and threads, and what cancellation and leaving wait for."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn

import pytest
import trio
from trio.testing import trio_test, wait_all_tasks_blocked

from ciaosfs.drive.workers import Workers, WorkerStatistics

PATIENCE_S = 20.0
"""Long enough for the busiest machine; a test that waits this long has failed."""


class Gate:
    """A call that says when it has started and ends when it is told to."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.opened = threading.Event()
        self.ended = False

    def __call__(self) -> str:
        self.started.set()
        assert self.opened.wait(PATIENCE_S)
        self.ended = True
        return "through"

    async def wait_started(self) -> None:
        assert await trio.to_thread.run_sync(self.started.wait, PATIENCE_S)


async def collect(into: list[object], call: Callable[[], Awaitable[object]]) -> None:
    into.append(await call())


def add(first: int, second: int) -> int:
    return first + second


def fail(error: BaseException) -> NoReturn:
    raise error


@trio_test
async def test_results_come_back() -> None:
    async with Workers() as workers:
        assert await workers.run(add, 3, 4) == 7
        assert await workers.run(dict[str, int]().get, "nothing") is None
        assert await workers.run(threading.get_ident) != threading.get_ident()


class Odd(BaseException):
    """Not an Exception: still no reason for a thread to die."""


@trio_test
async def test_exceptions_come_back_as_they_are_and_the_thread_lives_on() -> None:
    async with Workers(threads_max=1) as workers:
        for error in (ValueError("no"), OSError(28, "full"), Odd()):
            with pytest.raises(type(error)) as caught:
                await workers.run(fail, error)
            assert caught.value is error
            assert caught.traceback[-1].name == "fail"
        assert await workers.run(add, 1, 1) == 2
        assert workers.statistics() == WorkerStatistics(threads=1, running=0, queued=0)


@trio_test
async def test_threads_have_names_that_say_whose_they_are() -> None:
    async with Workers(name="ciaos-drive") as workers:
        assert await workers.run(lambda: threading.current_thread().name) == "ciaos-drive-1"


@trio_test
async def test_threads_are_made_when_needed_and_no_more_than_allowed() -> None:
    gates = [Gate() for _ in range(5)]
    results: list[object] = []
    async with Workers(threads_max=3) as workers:
        for _ in range(4):
            await workers.run(add, 1, 1)
        assert workers.statistics() == WorkerStatistics(threads=1, running=0, queued=0)
        async with trio.open_nursery() as nursery:
            for gate in gates:
                nursery.start_soon(collect, results, partial(workers.run, gate))
                await wait_all_tasks_blocked()  # trio starts tasks in no order of its own
            for gate in gates[:3]:
                await gate.wait_started()
            assert workers.statistics() == WorkerStatistics(threads=3, running=3, queued=2)
            assert not gates[3].started.is_set()
            for gate in gates:
                gate.opened.set()
    assert results == ["through"] * 5


@trio_test
async def test_a_cancelled_call_that_runs_is_waited_for_and_its_result_kept() -> None:
    gate = Gate()
    results: list[object] = []
    async with Workers() as workers, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def call() -> None:
            with scope:
                results.append(await workers.run(gate))
                await trio.lowlevel.checkpoint()
                results.append("not cancelled")

        nursery.start_soon(call)
        await gate.wait_started()
        scope.cancel()
        await wait_all_tasks_blocked()
        assert results == [] and not gate.ended
        gate.opened.set()
    assert results == ["through"]
    assert scope.cancelled_caught


@trio_test
async def test_a_cancelled_call_that_waits_for_a_thread_never_runs() -> None:
    first, second = Gate(), Gate()
    async with Workers(threads_max=1) as workers, trio.open_nursery() as nursery:
        nursery.start_soon(workers.run, first)
        await first.wait_started()
        with trio.CancelScope() as scope:
            nursery.start_soon(lambda: cancel_when_blocked(scope))
            await workers.run(second)
        assert scope.cancelled_caught
        assert workers.statistics() == WorkerStatistics(threads=1, running=1, queued=0)
        first.opened.set()
    assert not second.started.is_set()


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


@trio_test
async def test_a_call_in_a_cancelled_scope_does_not_start() -> None:
    async with Workers() as workers:
        with trio.CancelScope() as scope:
            scope.cancel()
            await workers.run(fail, AssertionError("it ran"))
        assert scope.cancelled_caught
        assert workers.statistics().threads == 0


@trio_test
async def test_leaving_waits_for_every_call_even_when_cancelled() -> None:
    running, waiting = Gate(), Gate()
    results: list[object] = []
    async with trio.open_nursery() as nursery:
        left = trio.Event()

        async def use_and_leave() -> None:
            with trio.CancelScope() as scope:
                async with Workers(threads_max=1, name="ciaos-leaving") as workers:
                    nursery.start_soon(collect, results, lambda: workers.run(running))
                    await running.wait_started()
                    nursery.start_soon(collect, results, lambda: workers.run(waiting))
                    await wait_all_tasks_blocked()
                    scope.cancel()
            left.set()

        nursery.start_soon(use_and_leave)
        await running.wait_started()
        await wait_all_tasks_blocked()
        assert not left.is_set()
        running.opened.set()
        waiting.opened.set()
        await left.wait()
        assert running.ended and waiting.ended
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("ciaos-leaving")]
    assert results == ["through", "through"]


@trio_test
async def test_the_pool_that_is_left_or_not_entered_takes_no_calls() -> None:
    workers = Workers()
    with pytest.raises(trio.ClosedResourceError):
        await workers.run(add, 1, 1)
    async with workers:
        pass
    with pytest.raises(trio.ClosedResourceError):
        await workers.run(add, 1, 1)
    with pytest.raises(AssertionError):
        await workers.__aenter__()


@trio_test
async def test_an_error_in_the_block_still_joins_the_threads() -> None:
    with pytest.raises(ValueError, match="the user's"):
        async with Workers(name="ciaos-failing") as workers:
            await workers.run(add, 1, 1)
            raise ValueError("the user's")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ciaos-failing")]


@trio_test
async def test_no_result_is_lost_or_mixed_up_among_many_with_cancellation() -> None:
    results: list[object] = []
    async with Workers(threads_max=4) as workers, trio.open_nursery() as nursery:

        async def call(number: int) -> None:
            with trio.CancelScope() as scope:
                if number % 3 == 0:
                    nursery.start_soon(cancel_soon, scope, number % 7)
                assert await workers.run(add, number, 0) == number
                results.append(number)

        for number in range(900):
            nursery.start_soon(call, number)
    assert len(results) == len(set(results)) >= 600
    assert set(results) >= {number for number in range(900) if number % 3}
    assert workers.statistics().running == workers.statistics().queued == 0


async def cancel_soon(scope: trio.CancelScope, turns: int) -> None:
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    scope.cancel()


class Big:
    """Stands for a buffer of some MiB."""


@trio_test
async def test_a_finished_call_keeps_nothing_alive() -> None:
    async with Workers(threads_max=1) as workers:
        argument = Big()
        died = weakref.ref(argument)
        result = weakref.ref(await workers.run(lambda _: Big(), argument))
        del argument
        deadline = time.monotonic() + PATIENCE_S
        while died() is not None or result() is not None:
            assert time.monotonic() < deadline, "a thread that waits for its next call still has the last one"
            gc.collect()
            await trio.lowlevel.checkpoint()
