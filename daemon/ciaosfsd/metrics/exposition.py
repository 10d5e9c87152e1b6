"""A snapshot in Prometheus' text format. Nothing in it names a file or a user: whoever reads the port may know it.

The format is prometheus_client's business. This is imported when somebody asks for metrics: that takes 30 ms and 5 MiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from ciaosfs.base.histogram import lower_ns

FIRST_BUCKET, LAST_BUCKET, BUCKET_STEP = 40, 144, 4
"""Of `base/histogram.py`, as Prometheus gets them: from 4 us to 4.6 minutes, doubling."""


def exposition(snapshot: Mapping[str, Any]) -> tuple[bytes, str]:
    """The text, and its content type."""

    class Snapshot(Collector):
        def collect(self) -> Iterable[Metric]:
            return _families(snapshot)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Snapshot())
    ProcessCollector(registry=registry)
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def _families(snapshot: Mapping[str, Any]) -> Iterator[Metric]:
    yield InfoMetricFamily("ciaosfs_build", "What runs.", {"version": snapshot["version"]})
    yield _gauge("ciaosfs_uptime_seconds", "Since the store was mounted.", snapshot["uptime_s"])
    yield from _request_families(snapshot)
    yield from _cache_families(snapshot["caches"])
    yield from _commit_families(snapshot)
    yield from _space_families(snapshot)
    yield from _drive_families(snapshot)


def _request_families(snapshot: Mapping[str, Any]) -> Iterator[Metric]:
    requests = snapshot["requests"]
    counts = CounterMetricFamily("ciaosfs_fuse_requests", "Requests of the kernel.", labels=["operation"])
    errors = CounterMetricFamily(
        "ciaosfs_fuse_errors", "Requests answered with an errno.", labels=["operation", "errno"]
    )
    durations = HistogramMetricFamily(
        "ciaosfs_fuse_request_duration_seconds",
        "From taking a request to its answer; some are timed and stand for all.",
        labels=["operation"],
    )
    for operation, fields in requests.items():
        counts.add_metric([operation], fields["count"])
        for name, count in fields["errors"].items():
            errors.add_metric([operation, name], count)
        durations.add_metric([operation], _cumulated(fields["buckets"]), fields["duration_s"])
    yield from (counts, errors, durations)
    yield _counter("ciaosfs_fuse_read_bytes", "File content that was read.", snapshot["bytes"]["read"])
    yield _counter(
        "ciaosfs_fuse_written_bytes", "File content that was written.", snapshot["bytes"]["written"]
    )
    yield _gauge("ciaosfs_open_files", "Files that are open.", snapshot["open_handles"])


def _cumulated(buckets: Mapping[str, int]) -> list[tuple[str, float]]:
    counts = sorted((int(index), count) for index, count in buckets.items())
    found = []
    for end in range(FIRST_BUCKET, LAST_BUCKET + 1, BUCKET_STEP):
        below = sum(count for index, count in counts if index < end)
        found.append((repr(lower_ns(end) / 1e9), float(below)))
    return [*found, ("+Inf", float(sum(count for _, count in counts)))]


def _cache_families(caches: Mapping[str, Mapping[str, int]]) -> Iterator[Metric]:
    for what, words in (("hits", "What was at hand in a cache."), ("misses", "What was not at hand.")):
        family = CounterMetricFamily(f"ciaosfs_cache_{what}", words, labels=["cache"])
        for name, counts in caches.items():
            family.add_metric([name], counts[what])
        yield family


def _commit_families(snapshot: Mapping[str, Any]) -> Iterator[Metric]:
    commits, last = snapshot["commits"], snapshot["commit"]
    yield SummaryMetricFamily(
        "ciaosfs_commit_duration_seconds",
        "Group commits that became durable.",
        count_value=commits["count"],
        sum_value=commits["duration_s"],
    )
    yield _counter("ciaosfs_commit_failures", "Commits that have to be tried again.", commits["failures"])
    yield _counter(
        "ciaosfs_commit_gate_closed_seconds", "Time changes waited for commits.", commits["gate_closed_s"]
    )
    yield _gauge("ciaosfs_commit_failing", "1: the last attempt failed.", float(last["failure"] is not None))
    yield _gauge(
        "ciaosfs_last_commit_timestamp_seconds", "Of the last commit's moment.", last["time_ns"] / 1e9
    )
    yield _gauge("ciaosfs_dirty_bytes", "Written and not yet on the drives.", snapshot["dirty_bytes"])


def _space_families(snapshot: Mapping[str, Any]) -> Iterator[Metric]:
    space = snapshot["space"]
    yield _gauge("ciaosfs_size_bytes", "File content that fits in all.", space["total"])
    yield _gauge("ciaosfs_free_bytes", "Not used.", space["free"])
    yield _gauge("ciaosfs_available_bytes", "That can be written.", space["available"])
    yield _gauge("ciaosfs_inodes", "Files, directories and other inodes.", snapshot["inodes"])
    work = snapshot["stripes"]
    yield _counter("ciaosfs_stripes_written", "Stripes that were written.", work["written"])
    yield _counter("ciaosfs_stripe_written_bytes", "Their payload.", work["written_bytes"])
    yield _counter(
        "ciaosfs_stripes_written_degraded",
        "With fewer shards than they should have.",
        work["written_degraded"],
    )
    yield _counter("ciaosfs_reads_degraded", "Decoded from other shards.", work["read_degraded"])
    yield _counter("ciaosfs_shards_damaged", "Damaged shards met by reads.", work["shards_damaged"])
    ahead = snapshot["read_ahead"]
    yield _counter("ciaosfs_read_ahead_taken", "Ranges that were in memory when wanted.", ahead["taken"])
    yield _counter("ciaosfs_read_ahead_wasted", "Pieces read ahead that nobody came for.", ahead["wasted"])


def _drive_families(snapshot: Mapping[str, Any]) -> Iterator[Metric]:
    stripes = GaugeMetricFamily(
        "ciaosfs_stripes", "Stripes by how many shards they miss.", labels=["missing"]
    )
    for missing, count in snapshot["stripes_by_missing"].items():
        stripes.add_metric([missing], count)
    jobs = GaugeMetricFamily("ciaosfs_jobs", "Background jobs under way.", labels=["kind", "state"])
    kinds: dict[tuple[str, str], int] = {}
    for job in snapshot["jobs"]:
        kinds[job["kind"], job["state"]] = kinds.get((job["kind"], job["state"]), 0) + 1
    for (kind, state), count in kinds.items():
        jobs.add_metric([kind, state], count)
    yield from (stripes, jobs)
    for name, words, value in (
        (
            "up",
            "1: the drive is there and takes part.",
            lambda drive: float(drive["state"] in ("online", "full")),
        ),
        (
            "slow",
            "1: the drive lags or does not answer.",
            lambda drive: float(drive["is_lagging"] or drive["is_hanging"]),
        ),
        ("free_bytes", "Of its file system.", lambda drive: drive["free"]),
        ("size_bytes", "Of its file system.", lambda drive: drive["total"]),
    ):
        family = GaugeMetricFamily(f"ciaosfs_drive_{name}", words, labels=["drive"])
        for drive in snapshot["drives"]:
            if value(drive) is not None:
                family.add_metric([str(drive["number"])], value(drive))
        yield family


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _counter(name: str, words: str, value: float) -> Metric:
    return CounterMetricFamily(name, words, value=value)
