"""Jobs are started, paused, resumed, remembered and tried again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, trio_test

from ciaosfs.base import limits
from ciaosfs.base.errors import DriveGoneError, UsageError
from ciaosfs.fs.gate import Gate
from ciaosfs.jobs.job import TRANSITIONS, JobState, Progress
from ciaosfs.jobs.runner import SAVE_S, run_jobs
from ciaosfs.jobs.throttle import Throttle
from ciaosfs.meta.jobs import Jobs
from tests.support.memory_jobs import MemoryTable, counting


class Stumbling:
    """Raises what it is given, in turn, and then is done."""

    def __init__(self, errors: list[BaseException]) -> None:
        self.errors = errors
        self.runs = 0

    async def run(self, progress: Progress) -> str:
        self.runs += 1
        await trio.lowlevel.checkpoint()
        if self.errors:
            raise self.errors.pop(0)
        return "It worked."


def kinds(stumbling: Stumbling | None = None) -> dict[str, Any]:
    def stumble(arguments: Mapping[str, Any]) -> Stumbling:
        assert stumbling is not None
        return stumbling

    return {"count": counting, "stumble": stumble}


def table() -> tuple[MemoryTable, Jobs]:
    made = MemoryTable()
    return made, cast(Jobs, made)


@trio_test
async def test_a_job_runs_to_its_end_and_is_remembered(autojump_clock: MockClock) -> None:
    memory, rows = table()
    async with run_jobs(rows, Gate(), kinds(), 1.0) as runner:
        job_id = await runner.submit("count", {"to": 5})
        assert memory.rows[job_id].state == "waiting", "queued and not in the open transaction"
        status = await runner.wait(job_id)
        assert (status.state, status.done, status.message) == (JobState.DONE, 5, "5 counted.")
        assert runner.unfinished("count") is None
    assert memory.rows[job_id].state == "done"
    assert memory.rows[job_id].message == "5 counted."


@trio_test
async def test_a_paused_job_stands_still_and_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    _, rows = table()
    async with run_jobs(rows, Gate(), kinds(), 1.0) as runner:
        job_id = await runner.submit("count", {"to": 100, "every_s": 1.0})
        await trio.sleep(10.5)
        runner.pause(job_id)
        runner.pause(job_id)
        await trio.sleep(1000)
        assert runner.job(job_id).state is JobState.PAUSED
        assert runner.job(job_id).done == 10
        assert runner.job(job_id).eta_s is None
        runner.resume(job_id)
        begun = trio.current_time()
        assert (await runner.wait(job_id)).done == 100
        assert trio.current_time() - begun == pytest.approx(90)
        for change in (runner.pause, runner.resume):
            with pytest.raises(UsageError, match="done"):
                change(job_id)


@trio_test
async def test_rate_and_time_left_are_those_of_the_last_minute(autojump_clock: MockClock) -> None:
    _, rows = table()
    async with run_jobs(rows, Gate(), kinds(), 1.0) as runner:
        job_id = await runner.submit("count", {"to": 1000, "every_s": 2.0})
        await trio.sleep(200.5)
        status = runner.job(job_id)
        assert status.rate == pytest.approx(0.5, rel=0.1)
        assert status.eta_s == pytest.approx(1800, rel=0.1)


@trio_test
async def test_what_was_running_goes_on_after_a_restart_and_what_was_paused_does_not(
    autojump_clock: MockClock,
) -> None:
    memory, rows = table()
    async with run_jobs(rows, Gate(), kinds(), 1.0) as runner:
        running = await runner.submit("count", {"to": 50, "every_s": 1.0})
        paused = await runner.submit("count", {"to": 50, "every_s": 1.0})
        await trio.sleep(20.5)
        runner.pause(paused)
    assert memory.rows[running].cursor == "20"
    async with run_jobs(rows, Gate(), kinds(), 1.0) as runner:
        begun = trio.current_time()
        assert (await runner.wait(running)).done == 50
        assert trio.current_time() - begun == pytest.approx(30)
        assert runner.job(paused).state is JobState.PAUSED


@trio_test
async def test_a_crash_repeats_half_a_minute_at_most(autojump_clock: MockClock) -> None:
    memory, rows = table()
    async with run_jobs(rows, Gate(), kinds(), 1.0) as runner:
        job_id = await runner.submit("count", {"to": 1000, "every_s": 1.0})
        await trio.sleep(100.5)
        assert int(memory.rows[job_id].cursor) >= 100 - SAVE_S


@trio_test
async def test_rows_wait_at_the_gate(autojump_clock: MockClock) -> None:
    memory, rows = table()
    gate = Gate()
    async with run_jobs(rows, gate, kinds(), 1.0) as runner:
        job_id = await runner.submit("count", {"to": 3, "every_s": 1.0})
        gate.close()
        await runner.wait(job_id)
        await trio.sleep(2 * SAVE_S)
        assert memory.rows[job_id].state == "waiting", "a row was written while the gate was closed"
        gate.open()
        await trio.testing.wait_all_tasks_blocked()
        assert memory.rows[job_id].state == "done"


@trio_test
async def test_trouble_with_drives_is_tried_again_and_a_bug_is_not(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    _, rows = table()
    stumbling = Stumbling(
        [DriveGoneError("Drive 3 is away."), ExceptionGroup("", [OSError(5, "I/O error")]), ValueError("bug")]
    )
    async with run_jobs(rows, Gate(), kinds(stumbling), 1.0) as runner:
        job_id = await runner.submit("stumble", {})
        await trio.testing.wait_all_tasks_blocked()
        assert runner.job(job_id).state is JobState.WAITING
        assert runner.job(job_id).message == "Drive 3 is away."
        runner.resume(job_id)
        await trio.testing.wait_all_tasks_blocked()
        assert "I/O error" in runner.job(job_id).message
        begun = trio.current_time()
        status = await runner.wait(job_id)
        assert trio.current_time() - begun == pytest.approx(limits.JOB_RETRY_S)
        assert status.state is JobState.FAILED
        assert "bug" in status.message
        assert stumbling.runs == 3
    assert any("failed" in record.getMessage() for record in caplog.records)
    caplog.clear()


@trio_test
async def test_no_more_run_at_once_and_no_more_are_remembered_than_the_limits_say(
    autojump_clock: MockClock,
) -> None:
    memory, rows = table()
    async with run_jobs(rows, Gate(), kinds(), 1.0) as runner:
        for _ in range(limits.JOBS_UNFINISHED_MAX):
            await runner.submit("count", {"to": 2, "every_s": 1.0})
        with pytest.raises(UsageError, match="unfinished"):
            await runner.submit("count", {})
        await trio.testing.wait_all_tasks_blocked()
        states = [status.state for status in runner.jobs()]
        assert states.count(JobState.RUNNING) == limits.JOBS_RUNNING_MAX
        await runner.wait(limits.JOBS_UNFINISHED_MAX)
        for _ in range(10):
            await runner.wait(await runner.submit("count", {}))
        await trio.testing.wait_all_tasks_blocked()
        assert len(runner.jobs()) == limits.JOBS_FINISHED_MAX
    assert len(memory.rows) == limits.JOBS_FINISHED_MAX
    assert max(memory.rows) == limits.JOBS_UNFINISHED_MAX + 10


@trio_test
async def test_what_cannot_be_is_refused() -> None:
    _, rows = table()
    async with run_jobs(rows, Gate(), kinds(), 1.0) as runner:
        with pytest.raises(UsageError, match="kind"):
            await runner.submit("dance", {})
        for ask in (runner.job, runner.pause, runner.resume):
            with pytest.raises(UsageError, match="no job 7"):
                ask(7)


def test_the_table_of_states_is_closed() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert all(after in TRANSITIONS for ways in TRANSITIONS.values() for after in ways)


@trio_test
async def test_a_throttle_leaves_the_rest_of_the_time(autojump_clock: MockClock) -> None:
    throttle = Throttle(0.25)
    begun = trio.current_time()
    for _ in range(10):
        await trio.sleep(1)
        await throttle.rest()
    assert trio.current_time() - begun == pytest.approx(40)
    await trio.sleep(1)
    await throttle.rest(1.0)
    assert trio.current_time() - begun == pytest.approx(41)
