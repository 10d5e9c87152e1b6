"""How drives are shown to people: a line for each, and one for what is being done to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ciaosfs.base.units import format_bytes
from ciaosfs.cli import jobtable
from ciaosfs.cli.output import format_table, labels_of, state_of


def table(drives: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each drive under a heading, then what there is to say about some."""
    rows = [["DRIVE", "STATE", "SHARDS", "HOLDS", "FREE", "TOTAL", "LABELS", "PATH"]]
    rows += [
        [
            str(drive["number"]),
            state_of(drive),
            f"{drive['shards']:,}",
            format_bytes(drive["shard_bytes"]),
            format_bytes(drive["free"]),
            format_bytes(drive["total"]),
            labels_of(drive),
            str(drive["path"]),
        ]
        for drive in drives
    ]
    return [*format_table(rows), *(line for drive in drives for line in _remarks(drive))]


def _remarks(drive: Mapping[str, Any]) -> list[str]:
    remarks = []
    if drive["reason"]:
        remarks.append(f"Drive {drive['number']} is {drive['state']}: {drive['reason']}")
    job = drive["job"]
    if job is not None:
        remarks.append(
            f"Drive {drive['number']} is being emptied by job {job['id']} ({job['state']}): {jobtable.progress(job)}, "
            f"{jobtable.rate(job)}, {jobtable.left(job)} left. {job['message']}".rstrip()
        )
    return remarks
