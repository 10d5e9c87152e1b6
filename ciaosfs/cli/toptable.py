"""What `ciaosfs top` shows: a snapshot and the rates since the one before it, as lines. Pure."""

from __future__ import annotations

import pwd
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ciaosfs.base.units import format_bytes, format_duration
from ciaosfs.cli.jobtable import left, name, progress, rate
from ciaosfs.cli.output import format_table
from ciaosfs.cli.rates import KindRate, ProcessRate, Rates

KINDS_SHOWN, PROCESSES_SHOWN, JOBS_SHOWN = 12, 15, 5
_CACHE_WORDS = {
    "pages": "pages of drives",
    "needle_heads": "needle heads",
    "stripe_records": "stripe records",
    "listings": "listings",
}


def frame(snapshot: Mapping[str, Any], rates: Rates, *, lines_max: int | None = None) -> list[str]:
    """Everything, a section after the other; of the tables as many lines as `lines_max` leaves room for."""
    head = _head(snapshot, rates)
    drives = _drives(snapshot["drives"])
    if drives:
        head.append(drives)
    tables = [
        _kinds(rates.kinds[: KINDS_SHOWN + 1]),
        _jobs(snapshot["jobs"][:JOBS_SHOWN]),
        _processes(rates.processes[:PROCESSES_SHOWN]),
    ]
    tables = [table for table in tables if table]
    if lines_max is not None:
        tables = _fit(tables, lines_max - len(head) - len(tables))
    return [*head, *(line for table in tables for line in ("", *table))]


def _fit(tables: list[list[str]], room: int) -> list[list[str]]:
    """Cut the longest table by a line until they fit; those without a row are left out."""
    tables = [list(table) for table in tables]
    while sum(map(len, tables)) > max(room, 0):
        max(tables, key=len).pop()
        tables = [table for table in tables if len(table) > 1]
    return tables


def _head(snapshot: Mapping[str, Any], rates: Rates) -> list[str]:
    daemon, commit, threads = snapshot["daemon"], snapshot["commit"], snapshot["threads"]
    caches = ", ".join(
        f"{_CACHE_WORDS.get(found.name, found.name)} {found.share:.0%}"
        for found in rates.caches
        if found.share is not None
    )
    took = "" if rates.commit_s is None else f", {rates.commit_s * 1000:.0f} ms each"
    lines = [
        f"ciaosfs {snapshot['mountpoint']}: up {format_duration(snapshot['uptime_s'])}, process {snapshot['pid']}, "
        f"processor {rates.cpu:.0%}, memory {format_bytes(daemon['memory_bytes'])}, "
        f"{threads['running']} of {threads['existing']} threads busy",
        f"Traffic  {rates.kinds[0].per_s:,.0f} requests/s, read {format_bytes(round(rates.read_per_s))}/s, "
        f"written {format_bytes(round(rates.written_per_s))}/s; {snapshot['open_handles']:,} open files",
        f"Caches   {caches or 'nothing was asked of them'}",
        f"Commits  {rates.commits_per_s:.1f}/s{took}, changes waited {rates.gate_share:.1%} of the time; "
        f"last {format_duration(commit['age_s'])} ago; {format_bytes(snapshot['dirty_bytes'])} dirty",
    ]
    if commit["failure"]:
        lines.append(f"Failing  {commit['failure']}")
    return lines


def _drives(drives: Sequence[Mapping[str, Any]]) -> str:
    """A line only when there is something about them to be told."""
    states = {drive["number"]: _drive_state(drive) for drive in drives}
    odd = [f"drive {number} is {state}" for number, state in states.items() if state != "online"]
    return f"Drives   {', '.join(odd)}" if odd else ""


def _drive_state(drive: Mapping[str, Any]) -> str:
    return "hanging" if drive["is_hanging"] else "lagging" if drive["is_lagging"] else str(drive["state"])


def _kinds(kinds: Sequence[KindRate]) -> list[str]:
    rows = [["REQUEST", "PER S", "ERRORS/S", "P50", "P99", "MEAN"]]
    rows += [
        [
            kind.name,
            f"{kind.per_s:,.1f}",
            f"{kind.errors_per_s:,.1f}" if kind.errors_per_s else "-",
            latency(kind.p50_s),
            latency(kind.p99_s),
            latency(kind.mean_s),
        ]
        for kind in kinds
    ]
    return format_table(rows, right=range(1, 6))


def _jobs(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    if not jobs:
        return []
    rows = [["JOB", "KIND", "STATE", "PROGRESS", "RATE", "LEFT"]]
    rows += [
        [str(job["id"]), name(job), str(job["state"]), progress(job), rate(job), left(job)] for job in jobs
    ]
    return format_table(rows)


def _processes(processes: Sequence[ProcessRate]) -> list[str]:
    rows = [["PID", "USER", "PER S", "BUSY", "READ/S", "WRITTEN/S", "COMMAND"]]
    rows += [
        [
            "-" if process.pid is None else str(process.pid),
            "-" if process.uid is None else _user(process.uid),
            f"{process.per_s:,.1f}",
            f"{process.busy:.0%}",
            format_bytes(round(process.read_per_s)) if process.read_per_s else "-",
            format_bytes(round(process.written_per_s)) if process.written_per_s else "-",
            "(the kernel, or ended)" if process.command is None else _printable(process.command),
        ]
        for process in processes
    ]
    return format_table(rows, right=(0, 2, 3, 4, 5)) if len(rows) > 1 else []


def latency(seconds: float | None) -> str:
    """`41 us`, `3.2 ms`, `1.4 s`; `-` when it is not known."""
    if seconds is None:
        return "-"
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.{1 if seconds * factor < 9.95 else 0}f} {unit}"
    return f"{seconds:.1f} s"


@cache
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _printable(command: str) -> str:
    # A process chooses its own name: escapes in it are not to reach the terminal.
    return "".join(letter if letter.isprintable() else "?" for letter in command)
