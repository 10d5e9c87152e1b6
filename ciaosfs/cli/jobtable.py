"""How jobs are shown to people: a line or a few for each. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ciaosfs.base.units import format_bytes, format_duration
from ciaosfs.cli.output import format_table


def table(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each job, under a heading."""
    if not jobs:
        return ["No jobs."]
    rows = [["JOB", "KIND", "STATE", "PROGRESS", "RATE", "LEFT", ""]]
    rows += [
        [
            str(job["id"]),
            name(job),
            str(job["state"]),
            progress(job),
            rate(job),
            left(job),
            str(job["message"]),
        ]
        for job in jobs
    ]
    return format_table(rows)


def details(job: Mapping[str, Any]) -> list[str]:
    """Everything about one job."""
    rows = [
        ["Job", f"{job['id']}, {name(job)}"],
        ["State", str(job["state"])],
        ["Progress", progress(job)],
        ["Rate", rate(job)],
        ["Left", left(job)],
        ["Asked for", _moment(job["created_ns"])],
        ["Last change", _moment(job["updated_ns"])],
    ]
    if job["message"]:
        rows.append(["", str(job["message"])])
    return format_table(rows)


def name(job: Mapping[str, Any]) -> str:
    """The kind of a job, and what it was asked."""
    asked = ", ".join(f"{key} {value}" for key, value in sorted(job["arguments"].items()))
    return f"{job['kind']} ({asked})" if asked else str(job["kind"])


def progress(job: Mapping[str, Any]) -> str:
    """How much of how much is done."""
    done, total = job["done"], job["total"]
    if not total:
        return _amount(done, job["unit"]) if done else "-"
    share = min(1.0, done / total)
    return f"{share:.0%} of {_amount(total, job['unit'])}"


def rate(job: Mapping[str, Any]) -> str:
    return "-" if job["rate"] is None else f"{_amount(round(job['rate']), job['unit'])}/s"


def left(job: Mapping[str, Any]) -> str:
    return "-" if job["eta_s"] is None else format_duration(job["eta_s"])


def _amount(count: int, unit: str) -> str:
    return format_bytes(count) if unit == "bytes" else f"{count:,} {unit}".rstrip()


def _moment(time_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ns / 1e9))
