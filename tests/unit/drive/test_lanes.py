"""Reads on one drive: when one is late, what that says about the drive, and who is told."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest
from trio.testing import trio_test, wait_all_tasks_blocked

from ciaosfs.base import clock, limits
from ciaosfs.base.errors import DriveHangsError
from ciaosfs.drive.calls import DriveCalls
from ciaosfs.drive.lanes import ReadCall
from ciaosfs.drive.tours import Step
from ciaosfs.drive.watch import STALL_S
from ciaosfs.drive.workers import Workers
from tests.support.builders import eventually
from tests.support.stuck_calls import Owner, Stuck, bench, shorten_deadlines


@pytest.fixture(autouse=True)
def _short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_deadlines(monkeypatch)


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
        assert (await b.calls.tour([Step(2, lambda: 1)]))[0].unwrap() == 1
    assert "a bug" in caplog.text
    caplog.clear()
