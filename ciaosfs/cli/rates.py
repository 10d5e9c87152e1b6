"""What happened between two snapshots of a daemon's counts (operation `stats`), as rates. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ciaosfs.base.histogram import quantile_ns

Snapshot = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KindRate:
    """Requests of one kind, or of all ("all"). Latencies in seconds, None when none was timed."""

    name: str
    per_s: float
    errors_per_s: float
    p50_s: float | None
    p99_s: float | None
    mean_s: float | None


@dataclass(frozen=True, slots=True)
class ProcessRate:
    """One process; `pid`, `command` and `uid` are None for all that ended before they were looked up."""

    pid: int | None
    command: str | None
    uid: int | None
    per_s: float
    busy: float
    """Share of the time that a request of it was being answered; above 1 when several were at a time."""
    read_per_s: float
    written_per_s: float


@dataclass(frozen=True, slots=True)
class CacheRate:
    """`share` that was at hand; None when nothing was wanted."""

    name: str
    share: float | None
    wanted_per_s: float


@dataclass(frozen=True, slots=True)
class Rates:
    """An interval. Bytes and commits are per second; `commit_s` is what one took on average, None without any."""

    interval_s: float
    kinds: tuple[KindRate, ...]
    read_per_s: float
    written_per_s: float
    caches: tuple[CacheRate, ...]
    commits_per_s: float
    commit_s: float | None
    gate_share: float
    processes: tuple[ProcessRate, ...]
    cpu: float

    def fields(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


def rates_between(before: Snapshot, after: Snapshot) -> Rates:
    """The rates from one snapshot to a later one of the same daemon."""
    interval_s: float = max(1e-9, after["clock_s"] - before["clock_s"])

    def per_s(*names: str) -> float:
        return _difference(before, after, names) / interval_s

    commits = _difference(before, after, ("commits", "count"))
    kinds = [
        _kind(name, [before["requests"].get(name, _NOTHING)], [fields], interval_s)
        for name, fields in after["requests"].items()
    ]
    total = _kind("all", before["requests"].values(), after["requests"].values(), interval_s)
    return Rates(
        interval_s=interval_s,
        kinds=(total, *sorted((kind for kind in kinds if kind.per_s), key=lambda kind: -kind.per_s)),
        read_per_s=per_s("bytes", "read"),
        written_per_s=per_s("bytes", "written"),
        caches=tuple(_cache(name, before, after, interval_s) for name in after["caches"]),
        commits_per_s=commits / interval_s,
        commit_s=_difference(before, after, ("commits", "duration_s")) / commits if commits else None,
        gate_share=per_s("commits", "gate_closed_s"),
        processes=tuple(_processes(before["processes"], after["processes"], interval_s)),
        cpu=per_s("daemon", "cpu_s"),
    )


_NOTHING: Mapping[str, Any] = {"count": 0, "errors": {}, "duration_s": 0.0, "buckets": {}}


def _difference(before: Snapshot, after: Snapshot, names: tuple[str, ...]) -> float:
    earlier: Any = before
    later: Any = after
    for name in names:
        earlier, later = earlier[name], later[name]
    return float(later) - float(earlier)


def _kind(
    name: str, before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]], interval_s: float
) -> KindRate:
    buckets: dict[int, int] = {}
    count = errors = duration_s = 0.0
    for sign, many in ((-1, before), (1, after)):
        for fields in many:
            count += sign * fields["count"]
            errors += sign * sum(fields["errors"].values())
            duration_s += sign * fields["duration_s"]
            for index, weight in fields["buckets"].items():
                buckets[int(index)] = buckets.get(int(index), 0) + sign * weight
    timed = sum(buckets.values())
    p50_ns, p99_ns = quantile_ns(buckets, 0.5), quantile_ns(buckets, 0.99)
    return KindRate(
        name,
        count / interval_s,
        errors / interval_s,
        None if p50_ns is None else p50_ns / 1e9,
        None if p99_ns is None else p99_ns / 1e9,
        duration_s / timed if timed else None,
    )


def _cache(name: str, before: Snapshot, after: Snapshot, interval_s: float) -> CacheRate:
    hits = _difference(before, after, ("caches", name, "hits"))
    wanted = hits + _difference(before, after, ("caches", name, "misses"))
    return CacheRate(name, max(0.0, hits / wanted) if wanted > 0 else None, max(0.0, wanted) / interval_s)


def _processes(
    before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]], interval_s: float
) -> list[ProcessRate]:
    """Those that made a request, the busiest first. The table of the daemon is bounded: a process may begin anew in it."""
    known = {process["pid"]: process for process in before}
    found = []
    for process in after:
        earlier = known.get(process["pid"])
        if earlier is None or earlier["requests"] > process["requests"]:
            earlier = {"requests": 0, "duration_s": 0.0, "bytes_read": 0, "bytes_written": 0}
        requests = process["requests"] - earlier["requests"]
        if requests:
            found.append(
                ProcessRate(
                    process["pid"],
                    process["command"],
                    process["uid"],
                    requests / interval_s,
                    max(0.0, process["duration_s"] - earlier["duration_s"]) / interval_s,
                    max(0, process["bytes_read"] - earlier["bytes_read"]) / interval_s,
                    max(0, process["bytes_written"] - earlier["bytes_written"]) / interval_s,
                )
            )
    return sorted(found, key=lambda process: -process.per_s)
