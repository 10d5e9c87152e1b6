"""No call on a drive is waited for without end, a drive that hangs keeps few threads, and the others get theirs."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import outcome
import pytest
import trio
from trio.testing import trio_test, wait_all_tasks_blocked

from ciaosfs.base import clock, limits
from ciaosfs.base.errors import DriveHangsError
from ciaosfs.drive.calls import DriveCalls
from ciaosfs.drive.lanes import ReadCall
from ciaosfs.drive.tours import Step
from ciaosfs.drive.watch import STALL_S
from ciaosfs.drive.workers import Workers
from tests.support.builders import eventually

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def _short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DRIVE_DEADLINE_S", 0.3)
    monkeypatch.setattr(limits, "DRIVE_DEADLINE_S_MAX", 0.9)
    monkeypatch.setattr(limits, "DRIVE_HANGING_S", 0.1)
    monkeypatch.setattr(limits, "WRITE_OFF_S", 0.05)
    monkeypatch.setattr(limits, "READ_LATE_S_FIRST", 0.02)


class Stuck:
    """A call that ends when it is told to."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.entered = 0

    def __call__(self) -> str:
        self.entered += 1
        assert self.let_go.wait(PATIENCE_S)
        return "at last"


class Bench:
    """The calls of a store that can spare `spare` drives, and which it was told hang."""

    def __init__(self, calls: DriveCalls, workers: Workers) -> None:
        self.calls = calls
        self.workers = workers
        self.hung: list[int] = []
        self.spare = 2


@asynccontextmanager
async def bench(threads_max: int = limits.WORKER_THREADS_MAX, spare: int = 2) -> AsyncIterator[Bench]:
    async with Workers(threads_max) as workers:
        made: list[Bench] = []
        calls = DriveCalls(
            workers,
            spare,
            lambda number: len({*made[0].hung, number}) <= made[0].spare,
            lambda number, reason: made[0].hung.append(number),
        )
        made.append(Bench(calls, workers))
        made[0].spare = spare
        calls.start()
        try:
            yield made[0]
        finally:
            calls.close()


class Owner:
    """Notes what it is told."""

    def __init__(self, may_act: Callable[[], bool] = lambda: True) -> None:
        self.ended: list[ReadCall] = []
        self.late: list[ReadCall] = []
        self._may_act = may_act

    def read_ended(self, call: ReadCall) -> None:
        self.ended.append(call)

    def read_late(self, call: ReadCall) -> bool:
        self.late.append(call)
        return self._may_act()


# Tours and single calls


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


# Reads


@trio_test
async def test_a_read_in_time_and_one_that_is_late_and_comes_all_the_same() -> None:
    stuck, owner = Stuck(), Owner()
    async with bench() as it:
        lane = it.calls.lane(1)
        quick = lane.read(owner, 100, str.upper, ("quick",))
        await eventually(lambda: owner.ended == [quick])
        assert quick.result.unwrap() == "QUICK" and owner.late == []
        late = lane.read(owner, 100, stuck, ())
        await eventually(lambda: owner.late == [late])
        stuck.let_go.set()
        await eventually(lambda: owner.ended == [quick, late])
        assert owner.late == [late], "the owner said that it does something: once is enough"


@trio_test
async def test_an_owner_that_may_not_act_is_asked_again() -> None:
    stuck, leave = Stuck(), list[bool]()
    async with bench() as it:
        owner = Owner(lambda: bool(leave))
        it.calls.lane(1).read(owner, 100, stuck, ())
        await eventually(lambda: len(owner.late) >= 2)
        leave.append(True)
        asked = len(owner.late)
        await eventually(lambda: len(owner.late) == asked + 1)
        stuck.let_go.set()
        await eventually(lambda: len(owner.ended) == 1)


@trio_test
async def test_a_drive_holds_few_reads_and_those_that_queue_behind_late_ones_are_late() -> None:
    stuck, owner = Stuck(), Owner()
    async with bench() as it:
        lane = it.calls.lane(1)
        reads = [lane.read(owner, 100, stuck, ()) for _ in range(limits.DRIVE_READS_MAX + 3)]
        await eventually(lambda: stuck.entered == limits.DRIVE_READS_MAX)
        await eventually(lambda: set(owner.late) == set(reads))
        assert lane.is_to_be_avoided
        assert stuck.entered == limits.DRIVE_READS_MAX
        reads[-1].let_go()
        stuck.let_go.set()
        await eventually(lambda: set(owner.ended) == set(reads[:-1]))
        assert stuck.entered == limits.DRIVE_READS_MAX + 2
        assert not lane.is_clogged


@trio_test
async def test_reads_that_hang_are_answered_with_an_error_those_in_the_queue_too() -> None:
    stuck, owner = Stuck(), Owner()
    async with bench() as it:
        lane = it.calls.lane(1)
        reads = [lane.read(owner, 100, stuck, ()) for _ in range(limits.DRIVE_READS_MAX + 3)]
        await eventually(lambda: set(owner.ended) == set(reads))
        for read in reads:
            with pytest.raises(DriveHangsError):
                read.result.unwrap()
        assert it.hung == [1]
        with pytest.raises(DriveHangsError):
            lane.read(owner, 100, stuck, ())
        ended = len(owner.ended)
        stuck.let_go.set()
        await eventually(lambda: not lane.hangs)
        assert len(owner.ended) == ended, "nobody is told twice"
        again = lane.read(owner, 100, str.upper, ("back",))
        await eventually(lambda: again in owner.ended)


@trio_test
async def test_a_read_let_go_of_is_timed_and_nobody_is_told() -> None:
    stuck, owner = Stuck(), Owner()
    async with bench() as it:
        lane = it.calls.lane(1)
        for _ in range(limits.DRIVE_READS_MAX):
            lane.read(owner, 100, stuck, ()).let_go()
        await eventually(lambda: lane.patience.lags or stuck.entered == 0)
        stuck.let_go.set()
        await wait_all_tasks_blocked()
        assert owner.ended == [] == owner.late
        await eventually(lambda: not lane.is_clogged)


@dataclass
class Hands:
    """A clock that goes when it is told to, for the loop and the threads."""

    now_s: float = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s


@pytest.mark.parametrize("took_s", [0.001, 2 * limits.READ_LATE_S_MAX])
@trio_test
async def test_a_read_is_as_late_as_it_ended_however_late_the_loop_hears_of_it(
    took_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that was busy made drives lag that had answered in time."""
    hands, owner = Hands(), Owner()
    monkeypatch.setattr(clock, "monotonic_s", hands.monotonic_s)

    def answer() -> None:
        hands.now_s += took_s

    async with Workers(1) as workers:
        calls = DriveCalls(workers, 2, lambda number: True, lambda number, reason: None)
        lane = calls.lane(1)
        for _ in range(8):
            read = lane.read(owner, 100, answer, ())
            bound_s = read.patience_s
            while not read.ended_s:  # the loop has no time
                threading.Event().wait(0.001)
            assert 0.001 < bound_s <= limits.READ_LATE_S_MAX
            hands.now_s += STALL_S / 2
            calls.watch.look(hands.now_s)
            calls.watch.look(hands.now_s)
            assert lane.has_late is read.is_late is (took_s > bound_s)
            await eventually(lambda ended=read: ended in owner.ended)  # type: ignore[misc]
            read.result.unwrap()
        assert lane.patience.lags is (took_s > bound_s)
        assert owner.late == [], "it is there: to ask others would be of no use"
        assert workers.statistics().written_off == 0


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


@trio_test
async def test_a_bug_in_what_a_late_call_does_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The watch is a system task: what escaped from it would take the whole mount away."""

    class Clumsy(Owner):
        def read_late(self, call: ReadCall) -> bool:
            raise ZeroDivisionError("a bug")

    async with bench() as b:
        stuck, owner = Stuck(), Clumsy()
        b.calls.lane(1).read(owner, 4096, stuck, ())
        await eventually(lambda: "not watched any more" in caplog.text)
        stuck.let_go.set()
        await eventually(lambda: len(owner.ended) == 1)
        assert (await b.calls.tour([Step(2, Big().length)]))[0].unwrap() == 1
    assert "a bug" in caplog.text
    caplog.clear()
