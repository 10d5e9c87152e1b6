"""Rates are differences of snapshots, and the frame of `ciaosfs top` fits and tells what there is."""

from __future__ import annotations

from typing import Any

import pytest

from ciaosfs.base.histogram import bucket_of
from ciaosfs.cli.rates import rates_between
from ciaosfs.cli.toptable import frame, latency


def snapshot(scale: int = 0, **changes: Any) -> dict[str, Any]:
    """The counts of a daemon that has done `scale` times the same."""
    return {
        "mountpoint": "/mnt/ciaos",
        "pid": 4,
        "clock_s": 100.0 + 2 * bool(scale),
        "uptime_s": 3.0,
        "requests": {
            "read": {
                "count": 100 * scale,
                "errors": {"EIO": scale},
                "duration_s": 0.01 * scale,
                "buckets": {str(bucket_of(100_000)): 99 * scale, str(bucket_of(5_000_000)): scale},
            },
            "lookup": {"count": 10, "errors": {}, "duration_s": 0.0, "buckets": {}},
        },
        "bytes": {"read": 4096 * scale, "written": 0},
        "caches": {"pages": {"hits": 9 * scale, "misses": scale}, "listings": {"hits": 0, "misses": 0}},
        "commits": {"count": scale, "failures": 0, "duration_s": 0.05 * scale, "gate_closed_s": 0.02 * scale},
        "commit": {"sequence": 1, "time_ns": 1, "age_s": 1.0, "failure": None},
        "threads": {"existing": 3, "running": 1, "queued": 0},
        "drives": [{"number": 0, "state": "online", "is_lagging": False, "is_hanging": False}],
        "jobs": [],
        "processes": [process(7, "cp", 100 * scale), process(8, "idle", 5)],
        "daemon": {"memory_bytes": 1 << 20, "cpu_s": 0.5 * scale},
        "space": {},
        "dirty_bytes": 0,
        "open_handles": 1,
        **changes,
    }


def process(pid: int | None, command: str | None, requests: int) -> dict[str, Any]:
    return {
        "pid": pid,
        "command": command,
        "uid": None if pid is None else 0,
        "requests": requests,
        "duration_s": requests / 1e4,
        "bytes_read": requests * 10,
        "bytes_written": 0,
    }


def test_rates_are_what_happened_by_the_time_it_took() -> None:
    rates = rates_between(snapshot(), snapshot(2))
    every, read = rates.kinds
    assert (every.name, read.name) == ("all", "read"), "what did not happen is not shown"
    assert (read.per_s, read.errors_per_s) == (100.0, 1.0)
    assert read.p50_s == pytest.approx(1e-4, rel=0.25)
    assert read.mean_s == pytest.approx(1e-4)
    assert (rates.read_per_s, rates.commits_per_s, rates.commit_s) == (4096.0, 1.0, 0.05)
    assert (rates.gate_share, rates.cpu) == (0.02, 0.5)
    assert [(cache.name, cache.share) for cache in rates.caches] == [("pages", 0.9), ("listings", None)]
    (cp,) = rates.processes
    assert (cp.pid, cp.per_s, cp.read_per_s) == (7, 100.0, 1000.0)


def test_a_process_that_the_daemon_forgot_meanwhile_begins_anew() -> None:
    before = snapshot(processes=[process(7, "cp", 1000)])
    after = snapshot(1, processes=[process(7, "cp", 10), process(None, None, 4)])
    assert [found.per_s for found in rates_between(before, after).processes] == [5.0, 2.0]


def test_nothing_happened() -> None:
    rates = rates_between(snapshot(), snapshot(clock_s=101.0))
    assert (rates.kinds[0].p50_s, rates.commit_s, rates.processes) == (None, None, ())
    assert any("nothing was asked" in line for line in frame(snapshot(), rates))


def test_the_frame_tells_what_there_is() -> None:
    job = {
        "id": 3,
        "kind": "repair",
        "arguments": {},
        "state": "running",
        "done": 1,
        "total": 4,
        "unit": "stripes",
    }
    after = snapshot(
        2,
        jobs=[{**job, "rate": None, "eta_s": None, "message": ""}],
        drives=[{"number": 2, "state": "absent", "is_lagging": False, "is_hanging": False}],
        commit={"sequence": 1, "time_ns": 1, "age_s": 1.0, "failure": "The drives are full."},
        processes=[process(7, "a\x1b[31mb", 10), process(None, None, 4)],
    )
    text = "\n".join(frame(after, rates_between(snapshot(), after)))
    for expected in (
        "drive 2 is absent",
        "The drives are full.",
        "repair",
        "25% of 4 stripes",
        "a?[31mb",
        "root",
    ):
        assert expected in text
    assert "\x1b" not in text


@pytest.mark.parametrize("lines_max", range(4, 40, 3))
def test_the_frame_fits_as_far_as_it_can(lines_max: int) -> None:
    after = snapshot(1, processes=[process(pid, "worker", 5 + pid) for pid in range(1, 100)])
    lines = frame(after, rates_between(snapshot(), after), lines_max=lines_max)
    assert len(lines) <= max(lines_max, 5)
    if lines_max >= 20:
        assert any("REQUEST" in line for line in lines) and any("worker" in line for line in lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0000042, "4.2 us"),
        (0.000041, "41 us"),
        (0.0032, "3.2 ms"),
        (0.9994, "999 ms"),
        (1.44, "1.4 s"),
    ],
)
def test_latencies_read_well(seconds: float | None, text: str) -> None:
    assert latency(seconds) == text
