"""No call on a drive is waited for without end, a drive that hangs keeps few threads, and the others get theirs."""

from __future__ import annotations

import gc
import threading
import weakref

import outcome
import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base import limits
from ciaosfs.base.errors import DriveHangsError
from ciaosfs.drive.tours import Step
from tests.support.builders import eventually
from tests.support.stuck_calls import PATIENCE_S, Owner, Stuck, bench, shorten_deadlines


@pytest.fixture(autouse=True)
def _short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_deadlines(monkeypatch)


@trio_test
async def test_steps_are_made_in_turn_and_each_has_an_outcome() -> None:
    async with bench() as it:
        released: list[int] = []

        def step(number: int) -> Step:
            return Step(number, lambda: 10 // number, lambda: released.append(number))

        results = await it.calls.tour([step(1), step(0), step(5)])
        assert [type(result) for result in results] == [outcome.Value, outcome.Error, outcome.Value]
        assert released == [1, 0, 5]
        assert await it.calls.call(3, "{}".format, 7) == "7"
        with pytest.raises(ZeroDivisionError):
            await it.calls.call(3, lambda: 1 // 0)
        assert await it.calls.tour([]) == []


@trio_test
async def test_a_step_that_hangs_is_given_up_and_the_rest_is_done_by_another_thread() -> None:
    stuck = Stuck()
    released: list[str] = []
    async with bench() as it:
        results = await it.calls.tour(
            [
                Step(0, lambda: "first", lambda: released.append("first")),
                Step(1, stuck, lambda: released.append("stuck")),
                Step(1, lambda: "never", lambda: released.append("never")),
                Step(2, lambda: "last", lambda: released.append("last")),
            ]
        )
        assert isinstance(results[1], outcome.Error) and isinstance(results[1].error, DriveHangsError)
        assert isinstance(results[2], outcome.Error) and isinstance(results[2].error, DriveHangsError)
        assert [results[0].unwrap(), results[3].unwrap()] == ["first", "last"]
        assert released == ["first", "never", "last"], "the file that is stuck may not be closed yet"
        assert it.hung == [1] and it.calls.hangs_now(1)
        with pytest.raises(DriveHangsError):
            await it.calls.call(1, lambda: pytest.fail("it hangs: no other thread may go in"))
        stuck.let_go.set()
        await eventually(lambda: not it.calls.hangs_now(1))
        assert released[-1] == "stuck" and released.count("stuck") == 1
        assert await it.calls.call(1, lambda: "back") == "back"
        assert it.calls.statistics().set_aside == 1


@trio_test
async def test_what_a_call_makes_too_late_is_undone_in_its_thread() -> None:
    stuck, undone = Stuck(), list[tuple[str, str]]()

    def undo(made: str) -> None:
        undone.append((made, threading.current_thread().name))

    async with bench() as it:
        with pytest.raises(DriveHangsError):
            await it.calls.call(1, stuck, undo=undo)
        assert undone == []
        stuck.let_go.set()
        await eventually(lambda: not it.calls.hangs_now(1))
        assert undone and undone[0][0] == "at last" and undone[0][1] != threading.main_thread().name


@trio_test
async def test_a_drive_that_hangs_leaves_every_thread_to_the_others() -> None:
    stuck = Stuck()
    given_up = []
    async with bench(threads_max=2) as it, trio.open_nursery() as nursery:

        async def hang() -> None:
            with pytest.raises(DriveHangsError) as caught:
                await it.calls.call(1, stuck)
            given_up.append(caught.value)

        for _ in range(4):
            nursery.start_soon(hang)
        with trio.fail_after(PATIENCE_S):
            assert await it.calls.call(2, lambda: "here") == "here"
            await eventually(lambda: it.calls.hangs_now(1))
            for _ in range(20):
                assert await it.calls.call(2, lambda: "here") == "here"
        await eventually(lambda: len(given_up) == 4)
        assert it.workers.statistics().written_off == stuck.entered
        stuck.let_go.set()
        await eventually(lambda: it.workers.statistics().written_off == 0)
        await eventually(lambda: it.workers.statistics().threads <= 2)


@trio_test
async def test_leaving_the_pool_does_not_wait_for_a_call_that_hangs() -> None:
    stuck = Stuck()
    with trio.fail_after(PATIENCE_S):
        async with bench() as it:
            with pytest.raises(DriveHangsError):
                await it.calls.call(1, stuck)
    stuck.let_go.set()


@trio_test
async def test_a_read_that_hangs_while_the_store_closes_is_not_waited_for() -> None:
    """Reads ahead are under way without anybody who waits for them, and nobody wrote them off after the close."""
    stuck, owner = Stuck(), Owner()
    with trio.fail_after(PATIENCE_S / 2):
        async with bench(threads_max=1) as it:
            for number in range(3):
                it.calls.lane(number).read(owner, 100, stuck, ())
            await eventually(lambda: stuck.entered == 1)
    assert stuck.entered == 3, "each had a thread, and its time"
    assert owner.ended == [] and it.hung == []
    stuck.let_go.set()


@trio_test
async def test_a_read_that_answers_is_waited_for_when_the_store_has_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "WRITE_OFF_S", 2 * PATIENCE_S)
    stuck, owner, left = Stuck(), Owner(), trio.Event()

    async def use_and_leave() -> None:
        async with bench() as it:
            it.calls.lane(1).read(owner, 100, stuck, ())
            await eventually(lambda: stuck.entered == 1)
        left.set()

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use_and_leave)
            await trio.sleep(0.1)
            assert not left.is_set() and owner.ended == []
            stuck.let_go.set()
    assert [read.result.unwrap() for read in owner.ended] == ["at last"]


@trio_test
async def test_a_drive_the_store_cannot_do_without_gets_more_time() -> None:
    stuck = Stuck()
    async with bench(spare=0) as it, trio.open_nursery() as nursery:
        started = trio.current_time()

        async def wait() -> None:
            with pytest.raises(DriveHangsError):
                await it.calls.call(1, stuck)
            assert trio.current_time() - started >= limits.DRIVE_DEADLINE_S_MAX

        nursery.start_soon(wait)
    stuck.let_go.set()


@trio_test
async def test_drives_that_are_silent_together_get_more_time_too() -> None:
    stuck = Stuck()
    results = []
    async with bench(spare=1) as it, trio.open_nursery() as nursery:
        it.spare = 9

        async def ask(number: int) -> None:
            results.append(await it.calls.call(number, stuck))

        for number in range(3):
            nursery.start_soon(ask, number)
        await eventually(lambda: stuck.entered == 3)
        await trio.sleep(1.5 * limits.DRIVE_DEADLINE_S)
        stuck.let_go.set()
    assert results == ["at last"] * 3
    assert it.hung == []


@trio_test
async def test_a_cancelled_call_that_runs_is_waited_for_until_the_deadline() -> None:
    stuck = Stuck()
    async with bench() as it:
        with trio.CancelScope() as scope:
            scope.cancel()
            await it.calls.call(1, stuck)
        assert stuck.entered == 0
        with trio.fail_after(PATIENCE_S), trio.move_on_after(0.01), pytest.raises(DriveHangsError):
            await it.calls.call(1, stuck)
        stuck.let_go.set()


@trio_test
async def test_a_call_that_hangs_in_a_drive_that_has_left_is_not_held_against_the_next_one() -> None:
    stuck, owner = Stuck(), Owner()
    async with bench() as it, trio.open_nursery() as nursery:
        read = it.calls.lane(1).read(owner, 100, stuck, ())

        async def hang() -> None:
            with pytest.raises(DriveHangsError):
                await it.calls.call(1, stuck)

        nursery.start_soon(hang)
        await eventually(lambda: stuck.entered == 2)
        it.calls.renew(1)
        assert await it.calls.call(1, lambda: "the new one") == "the new one"
        await eventually(lambda: owner.ended == [read])
    with pytest.raises(DriveHangsError):
        read.result.unwrap()
    assert it.hung == [] and it.calls.statistics().set_aside == 0
    assert not it.calls.hangs_now(1)
    stuck.let_go.set()


@trio_test
async def test_a_process_that_was_stopped_does_not_blame_the_drives() -> None:
    """The watch looks much too late: what went by meanwhile is not counted."""
    stuck = Stuck()
    async with bench() as it, trio.open_nursery() as nursery:
        results = []

        async def ask() -> None:
            results.append(await it.calls.call(1, stuck))

        nursery.start_soon(ask)
        await eventually(lambda: stuck.entered == 1)
        threading.Event().wait(1.0)  # the loop stands still, longer than the deadline
        await trio.sleep(0.02)
        stuck.let_go.set()
    assert results == ["at last"]


class Big:
    """Stands for a buffer of some MiB."""

    def length(self) -> int:
        return 1


@trio_test
async def test_a_tour_that_has_ended_keeps_no_buffers_until_the_collector_comes() -> None:
    """Hundreds of MiB lived on under load, because a tour and its function knew each other."""
    async with bench() as b:
        gc.collect()
        gc.disable()
        try:
            buffer = Big()
            died = weakref.ref(buffer)
            results = await b.calls.tour([Step(number, buffer.length) for number in range(2)])
            assert [result.unwrap() for result in results] == [1, 1]
            del buffer, results
            await eventually(lambda: died() is None)
        finally:
            gc.enable()
