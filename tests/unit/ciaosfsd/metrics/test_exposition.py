"""What Prometheus gets can be parsed, keeps to its conventions, and says what was counted."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest
import trio
from ciaosfsd.metrics.exposition import exposition
from ciaosfsd.metrics.requests import Requests
from ciaosfsd.metrics.snapshot import Snapshots
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from ciaosfs.fs.filesystem import FileSystem
from tests.support.memory_fs import MemoryFileSystem
from tests.support.memory_jobs import open_memory_jobs


@pytest.fixture(scope="module")
def families() -> dict[str, Metric]:
    requests = Requests()
    requests.watch()
    for name, errors in (("lookup", {2: 5}), ("read", {})):
        tally = requests.tally(name)
        for _ in range(20):
            tally.count += 1
            requests.end(tally, requests.begin(tally), 0)
        tally.errors.update(errors)
    requests.tally("read").bytes = 4096

    async def take() -> bytes:
        async with open_memory_jobs(cast(Any, None), None) as jobs:
            snapshots = Snapshots("/store", "/mnt", cast(FileSystem, MemoryFileSystem()), jobs, requests)
            text, kind = exposition(snapshots.take())
            assert kind.startswith("text/plain; version=0.0.4")
            return text

    text = trio.run(take).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(families: dict[str, Metric], name: str, sample: str = "", **labels: str) -> float:
    (found,) = [
        found.value
        for found in families[name].samples
        if found.labels == labels
        and found.name == (sample or found.name)
        and not found.name.endswith("_created")
    ]
    return float(found)


def test_names_and_help_keep_to_the_conventions(families: dict[str, Metric]) -> None:
    for name, family in families.items():
        assert re.fullmatch(r"(ciaosfs|process)_[a-z_]+", name)
        assert family.documentation
        assert not re.search(r"_(ms|us|ns|mib|kib|percent)$", name), "base units"
        assert family.type != "unknown"


def test_figures_are_those_that_were_counted(families: dict[str, Metric]) -> None:
    assert value(families, "ciaosfs_fuse_requests", operation="lookup") == 20
    assert value(families, "ciaosfs_fuse_errors", operation="lookup", errno="ENOENT") == 5
    assert value(families, "ciaosfs_fuse_read_bytes") == 4096
    assert value(families, "ciaosfs_cache_hits", cache="pages") == 90
    assert value(families, "ciaosfs_commit_duration_seconds", "ciaosfs_commit_duration_seconds_count") == 7
    assert value(families, "ciaosfs_drive_up", drive="0") == 1
    assert value(families, "ciaosfs_stripes", missing="1") == 3
    assert value(families, "ciaosfs_read_ahead_taken") == 8
    assert value(families, "ciaosfs_read_ahead_wasted") == 3
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6


def test_histograms_rise_to_the_number_of_requests(families: dict[str, Metric]) -> None:
    samples = [
        sample
        for sample in families["ciaosfs_fuse_request_duration_seconds"].samples
        if sample.labels.get("operation") == "read"
    ]
    buckets = [(float(sample.labels["le"]), sample.value) for sample in samples if "le" in sample.labels]
    assert buckets == sorted(buckets) and buckets[-1] == (float("inf"), 20)
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
