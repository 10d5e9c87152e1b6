"""The jobs as the metadata remembers them: what was asked, how far it is, how it ended."""

from __future__ import annotations

from typing import Final, NamedTuple

from ciaosfs.meta.database import Database

_PUT: Final = "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ALL: Final = (
    "SELECT job, kind, arguments, state, cursor, done, total, unit, created_ns, updated_ns, message"
    " FROM jobs ORDER BY job"
)
_DELETE: Final = "DELETE FROM jobs WHERE job = ?"


class JobRow(NamedTuple):
    """A row of `jobs`; see schema.py."""

    job_id: int
    kind: str
    arguments: str
    state: str
    cursor: str
    done: int
    total: int
    unit: str
    created_ns: int
    updated_ns: int
    message: str


class Jobs:
    """The jobs of one database. `ciaosfs/jobs/runner.py` alone changes them."""

    def __init__(self, database: Database) -> None:
        self._execute = database.executor()

    def put(self, row: JobRow) -> None:
        """Add a job, or replace what is known of it."""
        self._execute(_PUT, row)

    def all(self) -> list[JobRow]:
        """Every job, oldest first."""
        return [JobRow._make(row) for row in self._execute(_ALL).fetchall()]

    def delete(self, job_id: int) -> None:
        """Forget a job. Unknown: nothing."""
        self._execute(_DELETE, (job_id,))
