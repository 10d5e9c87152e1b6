"""Runs jobs beside the mount: starts, pauses, resumes and remembers them.

Memory is the authority, the rows of `meta.jobs` follow: at once (past the gate) when a state changes, every SAVE_S
while a job makes progress. Rows are part of the commits, so a job survives what the tree survives: what was
running or waiting when the store was closed, or died, goes on when it is opened.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from ciaosfs.base import clock, limits
from ciaosfs.base.errors import CiaosError, UsageError
from ciaosfs.fs.gate import Gate
from ciaosfs.jobs.job import FINISHED, TRANSITIONS, Job, JobPostponedError, JobState, JobStatus
from ciaosfs.jobs.throttle import Throttle
from ciaosfs.meta.jobs import JobRow, Jobs

log = logging.getLogger(__name__)

SAVE_S = 30.0
"""Between two looks at how far jobs are: so much work is done again after a crash, and so seldom an idle store commits."""
RATE_SAMPLES_MAX = 32
RATE_WINDOW_S = 60.0

JobFactory = Callable[[Mapping[str, Any]], Job]
"""Arguments -> a job that is ready to run. Raises UsageError for arguments that cannot be."""


class _Entry:
    """One job in memory; the `Progress` of its runs."""

    def __init__(self, row: JobRow, share: float, on_change: Callable[[int, bool], None]) -> None:
        self.job_id = row.job_id
        self.kind = row.kind
        self.arguments: Mapping[str, Any] = json.loads(row.arguments)
        self.state = JobState(row.state)
        self.cursor = row.cursor
        self.done = row.done
        self.total = row.total
        self.unit = row.unit
        self.created_ns = row.created_ns
        self.updated_ns = row.updated_ns
        self.message = row.message
        self.retry_at_s = 0.0
        self.scope: trio.CancelScope | None = None
        self.poke = trio.Event()
        """Replaced by a new one whenever the state changes from outside."""
        self.finished = trio.Event()
        if self.state in FINISHED:
            self.finished.set()
        self._share = share
        self._throttle: Throttle | None = None
        self._on_change = on_change
        self._samples: deque[tuple[float, int]] = deque(maxlen=RATE_SAMPLES_MAX)

    def enter(self, state: JobState, message: str | None = None) -> None:
        """Change the state along TRANSITIONS."""
        assert state in TRANSITIONS[self.state], f"a job does not go from {self.state} to {state}"
        self.state = state
        if message is not None:
            self.message = message
        self._samples.clear()
        self._touch(is_state=True)
        if state in FINISHED:
            self.finished.set()
        poke, self.poke = self.poke, trio.Event()
        poke.set()

    def begin(self) -> None:
        """A run begins."""
        self._throttle = Throttle(self._share)
        self.enter(JobState.RUNNING, "")
        self._sample()

    def note(
        self,
        *,
        done: int | None = None,
        total: int | None = None,
        unit: str | None = None,
        cursor: str | None = None,
        message: str | None = None,
    ) -> None:
        """See `job.Progress`."""
        self.done = self.done if done is None else done
        self.total = self.total if total is None else total
        self.unit = self.unit if unit is None else unit
        self.cursor = self.cursor if cursor is None else cursor
        self.message = self.message if message is None else message
        self._sample()
        self._touch(is_state=False)

    async def rest(self, share: float | None = None) -> None:
        """See `job.Progress`."""
        assert self._throttle is not None
        await self._throttle.rest(share)

    def status(self) -> JobStatus:
        rate = self._rate()
        eta_s = None
        if rate and self.total:
            eta_s = max(0, self.total - self.done) / rate
        return JobStatus(
            self.job_id,
            self.kind,
            self.arguments,
            self.state,
            self.done,
            self.total,
            self.unit,
            self.created_ns,
            self.updated_ns,
            self.message,
            rate,
            eta_s,
        )

    def row(self) -> JobRow:
        return JobRow(
            self.job_id,
            self.kind,
            json.dumps(self.arguments, sort_keys=True),
            self.state,
            self.cursor,
            self.done,
            self.total,
            self.unit,
            self.created_ns,
            self.updated_ns,
            self.message,
        )

    def _touch(self, *, is_state: bool) -> None:
        self.updated_ns = clock.now_ns()
        self._on_change(self.job_id, is_state)

    def _sample(self) -> None:
        now = trio.current_time()
        samples = self._samples
        if len(samples) >= 2 and now - samples[-2][0] < RATE_WINDOW_S / RATE_SAMPLES_MAX:
            samples[-1] = (now, self.done)
        else:
            samples.append((now, self.done))

    def _rate(self) -> float | None:
        if self.state is not JobState.RUNNING or not self._samples:
            return None
        now = trio.current_time()
        begin_s, begin = self._samples[0]
        for at_s, done in self._samples:
            if at_s < now - RATE_WINDOW_S:
                begin_s, begin = at_s, done
        return (self.done - begin) / (now - begin_s) if now > begin_s else None


class JobRunner:
    """The jobs of one open store; made by `run_jobs`. All methods are for the loop."""

    def __init__(
        self,
        table: Jobs,
        gate: Gate,
        kinds: Mapping[str, JobFactory],
        share: float,
        nursery: trio.Nursery,
    ) -> None:
        self._table = table
        self._gate = gate
        self._kinds = kinds
        self._share = share
        self._nursery = nursery
        self._limiter = trio.CapacityLimiter(limits.JOBS_RUNNING_MAX)
        self._changed: set[int] = set()
        self._forgotten: set[int] = set()
        self._wake = trio.Event()
        self._entries: dict[int, _Entry] = {}
        for row in table.all():
            entry = self._entries[row.job_id] = _Entry(row, share, self._note_change)
            if entry.state is JobState.RUNNING:
                entry.enter(JobState.WAITING, "It goes on since the store was opened again.")
        for entry in self._entries.values():
            if entry.state not in FINISHED:
                nursery.start_soon(self._live, entry)

    # For everybody

    async def submit(self, kind: str, arguments: Mapping[str, Any]) -> int:
        """Queue a job; returns its number. It is in the open transaction on return, and starts soon.

        Raises UsageError for a kind or arguments that cannot be, and when too many jobs are unfinished.
        """
        self._factory(kind)(arguments)
        if sum(entry.state not in FINISHED for entry in self._entries.values()) >= limits.JOBS_UNFINISHED_MAX:
            raise UsageError(f"{limits.JOBS_UNFINISHED_MAX} jobs are unfinished: let some of them end first.")
        await self._gate.wait_open()
        now_ns = clock.now_ns()
        job_id = max(self._entries, default=0) + 1
        row = JobRow(
            job_id,
            kind,
            json.dumps(dict(arguments), sort_keys=True),
            JobState.WAITING,
            "",
            0,
            0,
            "",
            now_ns,
            now_ns,
            "",
        )
        self._table.put(row)
        entry = self._entries[job_id] = _Entry(row, self._share, self._note_change)
        self._nursery.start_soon(self._live, entry)
        return job_id

    def jobs(self) -> list[JobStatus]:
        """Every job that is remembered, oldest first."""
        return [self._entries[job_id].status() for job_id in sorted(self._entries)]

    def job(self, job_id: int) -> JobStatus:
        """One job. UsageError when there is none of this number."""
        return self._entry(job_id).status()

    def unfinished(self, kind: str) -> JobStatus | None:
        """The oldest job of this kind that has not ended; None when there is none."""
        for status in self.jobs():
            if status.kind == kind and not status.is_finished:
                return status
        return None

    def pause(self, job_id: int) -> None:
        """Stop a job until it is resumed. Paused already: nothing. UsageError when it has ended or is unknown."""
        entry = self._entry(job_id)
        if entry.state is JobState.PAUSED:
            return
        if entry.state in FINISHED:
            raise UsageError(f"Job {job_id} is {entry.state}: it cannot be paused any more.")
        entry.enter(JobState.PAUSED)
        if entry.scope is not None:
            entry.scope.cancel()

    def resume(self, job_id: int) -> None:
        """Let a paused job go on, and one that waits before it tries again do so now. UsageError when it has ended."""
        entry = self._entry(job_id)
        if entry.state in FINISHED:
            raise UsageError(f"Job {job_id} is {entry.state}: there is nothing to resume.")
        if entry.state is JobState.PAUSED:
            entry.retry_at_s = 0.0
            entry.enter(JobState.WAITING)
        elif entry.state is JobState.WAITING:
            entry.retry_at_s = 0.0
            poke, entry.poke = entry.poke, trio.Event()
            poke.set()

    async def wait(self, job_id: int) -> JobStatus:
        """Return when the job has ended, well or badly."""
        entry = self._entry(job_id)
        await entry.finished.wait()
        return entry.status()

    # Inside

    def _entry(self, job_id: int) -> _Entry:
        entry = self._entries.get(job_id)
        if entry is None:
            raise UsageError(f"There is no job {job_id}: 'ciaosfs job list' shows those there are.")
        return entry

    def _factory(self, kind: str) -> JobFactory:
        factory = self._kinds.get(kind)
        if factory is None:
            raise UsageError(f"There is no job of the kind {kind!r}.")
        return factory

    async def _live(self, entry: _Entry) -> None:
        """One job from here to its end."""
        while entry.state not in FINISHED:
            wait_s = entry.retry_at_s - trio.current_time()
            if entry.state is JobState.PAUSED:
                await entry.poke.wait()
            elif wait_s > 0:
                with trio.move_on_after(wait_s):
                    await entry.poke.wait()
            else:
                async with self._limiter:
                    if entry.state is JobState.WAITING:
                        await self._run(entry)
        self._forget_old()

    async def _run(self, entry: _Entry) -> None:
        """One run. Whatever comes of it, the job is not running afterwards."""
        entry.begin()
        try:
            with trio.CancelScope() as entry.scope:
                sentence = await self._factory(entry.kind)(entry.arguments).run(entry)
                if entry.state is JobState.RUNNING:
                    entry.enter(JobState.DONE, sentence)
                    log.info("job %d (%s) is done: %s", entry.job_id, entry.kind, sentence)
        except Exception as error:  # noqa: BLE001 - told apart and logged there
            self._stumbled(entry, error)
        finally:
            entry.scope = None

    def _stumbled(self, entry: _Entry, error: Exception) -> None:
        if entry.state is not JobState.RUNNING:
            log.info("job %d (%s) was paused when it met: %s", entry.job_id, entry.kind, error)
            return
        causes = _leaves(error)
        if any(isinstance(cause, UsageError) for cause in causes):
            entry.enter(JobState.FAILED, str(causes[0]))
            log.error("job %d (%s) failed: %s", entry.job_id, entry.kind, causes[0])
        elif all(isinstance(cause, (CiaosError, OSError)) for cause in causes):
            first = causes[0]
            retry_s = first.retry_s if isinstance(first, JobPostponedError) else limits.JOB_RETRY_S
            entry.retry_at_s = trio.current_time() + retry_s
            entry.enter(JobState.WAITING, str(first))
            log.info("job %d (%s) waits: %s", entry.job_id, entry.kind, first)
        else:  # our bug: the mount stays up
            log.exception("job %d (%s) failed", entry.job_id, entry.kind)
            entry.enter(JobState.FAILED, f"It failed by a bug ({error!r}): the log says more.")

    def _forget_old(self) -> None:
        """The newest that have ended are kept, and the newest of each kind."""
        finished = [job_id for job_id in sorted(self._entries) if self._entries[job_id].state in FINISHED]
        newest = {self._entries[job_id].kind: job_id for job_id in finished}
        for job_id in finished[: -limits.JOBS_FINISHED_MAX]:
            if job_id in newest.values():
                continue
            del self._entries[job_id]
            self._changed.discard(job_id)
            self._forgotten.add(job_id)

    def _note_change(self, job_id: int, is_state: bool) -> None:
        self._changed.add(job_id)
        if is_state:
            self._wake.set()

    async def _save_for_ever(self) -> None:
        while True:
            with trio.move_on_after(SAVE_S):
                await self._wake.wait()
            await self._save()

    async def _save(self) -> None:
        """Bring the rows up to what memory knows, in the open transaction."""
        await self._gate.wait_open()
        self._wake = trio.Event()
        for job_id in self._changed:
            self._table.put(self._entries[job_id].row())
        for job_id in self._forgotten:
            self._table.delete(job_id)
        self._changed.clear()
        self._forgotten.clear()


@asynccontextmanager
async def run_jobs(
    table: Jobs, gate: Gate, kinds: Mapping[str, JobFactory], share: float
) -> AsyncIterator[JobRunner]:
    """A runner that runs. Leaving it stops the jobs where they are, and notes in the open transaction how far they are.

    `kinds` says how to make jobs, by kind; `share` is the share of the time that each may take.
    """
    async with trio.open_nursery() as nursery:
        runner = JobRunner(table, gate, kinds, share, nursery)
        nursery.start_soon(runner._save_for_ever)
        try:
            yield runner
        finally:
            nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await runner._save()


def _leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group, whatever its depth; an exception that is none, alone."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
