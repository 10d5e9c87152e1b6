"""Applying what a session recorded, strictly: whatever does not fit is damage, not something to work around."""

from __future__ import annotations

import apsw

from ciaosfs.base.errors import LogDamagedError
from ciaosfs.meta import schema


def apply_changeset(connection: apsw.Connection, changeset: bytes) -> None:
    """Do in the open transaction what `changeset` says: all of it, or LogDamagedError and nothing."""
    trouble: list[str] = []

    def is_wanted(table: str) -> bool:
        if table not in schema.TABLES:  # SQLite would pass over it with a line in its log
            trouble.append(f"table {table} is unknown")
        return not trouble

    def conflict(reason: int, change: apsw.TableChange) -> int:
        name = apsw.mapping_session_conflict.get(reason, str(reason))
        trouble.append(f"{change.op} in table {change.name} meets {name}")
        return apsw.SQLITE_CHANGESET_ABORT

    try:
        with connection:
            apsw.Changeset.apply(changeset, connection, filter=is_wanted, conflict=conflict)
            if trouble:
                raise LogDamagedError(_sentence(trouble[0]))
    except (apsw.AbortError, apsw.CorruptError, apsw.ConstraintError) as error:
        raise LogDamagedError(_sentence(trouble[0] if trouble else str(error))) from error


def _sentence(trouble: str) -> str:
    return f"A commit does not fit the metadata it builds on: {trouble}."
