"""What a job is: its states, what it shows of itself, and what it is given to work with. No state of its own.

A *job* is long work in the background that may be interrupted at any await and begun again: it does not hold
anything that is not on the drives or in the metadata, and goes on at its *cursor*, or finds by itself what is left.

    waiting -> running      its turn has come
    running -> waiting      it met trouble with the drives and tries again later
    running -> done, failed
    waiting, running -> paused -> waiting      by a person
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from ciaosfs.base.errors import CiaosError
from ciaosfs.base.limits import JOB_RETRY_S


class JobState(StrEnum):
    """See the module; stored in the metadata."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"


TRANSITIONS = {
    JobState.WAITING: {JobState.RUNNING, JobState.PAUSED},
    JobState.RUNNING: {JobState.WAITING, JobState.PAUSED, JobState.DONE, JobState.FAILED},
    JobState.PAUSED: {JobState.WAITING},
    JobState.DONE: set[JobState](),
    JobState.FAILED: set[JobState](),
}
FINISHED = frozenset(state for state, ways in TRANSITIONS.items() if not ways)


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job at one moment, for people. Times in nanoseconds since the epoch.

    `done` and `total` count `unit`s ("bytes", "stripes"); `total` is 0 while it is not known. `rate` is units per
    second lately, pauses included, and `eta_s` how long it will take at that rate; None unless it runs and both can be told.
    """

    job_id: int
    kind: str
    arguments: Mapping[str, Any]
    state: JobState
    done: int
    total: int
    unit: str
    created_ns: int
    updated_ns: int
    message: str
    rate: float | None = None
    eta_s: float | None = None

    @property
    def is_finished(self) -> bool:
        return self.state in FINISHED


class JobPostponedError(CiaosError):
    """The job cannot go on now and is to be run again after `retry_s`; the message says what it waits for."""

    def __init__(self, message: str, retry_s: float = JOB_RETRY_S) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class Progress(Protocol):
    """What a running job tells of itself."""

    @property
    def cursor(self) -> str:
        """Where the last run of this job left off; "" at the beginning."""

    @property
    def done(self) -> int:
        """What earlier runs of this job did."""

    def note(
        self,
        *,
        done: int | None = None,
        total: int | None = None,
        unit: str | None = None,
        cursor: str | None = None,
        message: str | None = None,
    ) -> None:
        """Remember how far the job is. Everything before `cursor` will not be done again."""

    async def rest(self, share: float | None = None) -> None:
        """Pause for as long as the job's share of the time demands after what it has done since the last rest.

        `share` instead of the configured one; 1 does not pause.
        """


class Job(Protocol):
    """One piece of work. Made anew for every run from its kind and arguments."""

    async def run(self, progress: Progress) -> str:
        """Work to the end; returns a sentence that says what was done.

        May be cancelled at any await. JobPostponedError, any other CiaosError and OSError mean that it is to be tried
        again later.
        """
