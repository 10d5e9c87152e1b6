"""Everything the daemon has counted and everything it holds, in one value: what `ciaosfs top` shows and Prometheus gets."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Any

from ciaosfs import __version__
from ciaosfs.base import clock
from ciaosfs.jobs.opening import OpenJobs
from ciaosfsd.memory import resident_bytes
from ciaosfsd.metrics.requests import Requests, Tally

if TYPE_CHECKING:
    from ciaosfs.fs.filesystem import FileSystem


class Snapshots:
    """Takes them of one mounted store. For the loop; a snapshot takes about a millisecond."""

    def __init__(
        self,
        store: str | os.PathLike[str],
        mountpoint: str | os.PathLike[str],
        filesystem: FileSystem,
        jobs: OpenJobs,
        requests: Requests,
    ) -> None:
        self._store = os.fspath(store)
        self._mountpoint = os.fspath(mountpoint)
        self._fs = filesystem
        self._jobs = jobs
        self._requests = requests
        self._started_s = clock.monotonic_s()

    def watch(self) -> None:
        """Somebody looks: see `Requests.watch`."""
        self._requests.watch()

    def take(self) -> dict[str, Any]:
        """Counts since the store was mounted; sizes in bytes, durations and ages in seconds, as JSON can hold it."""
        now_s = clock.monotonic_s()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "store": self._store,
            "mountpoint": self._mountpoint,
            "clock_s": now_s,
            "uptime_s": now_s - self._started_s,
            "requests": {
                name: _request_fields(tally) for name, tally in self._requests.tallies.items() if tally.count
            },
            "bytes": {
                "read": self._requests.tally("read").bytes,
                "written": self._requests.tally("write").bytes,
            },
            **self._state(),
            **self._work(),
            "jobs": self._job_fields(),
            "processes": self._processes(),
            "daemon": {
                "memory_bytes": resident_bytes(),
                "cpu_s": time.process_time(),
            },
        }

    def metrics(self) -> tuple[bytes, str]:
        """A snapshot as Prometheus reads it, and the content type of that."""
        from ciaosfsd.metrics.exposition import exposition

        return exposition(self.take())

    def _state(self) -> dict[str, Any]:
        """What the store holds now."""
        status = self._fs.status()
        commit, slow = status.commit, status.slowness
        return {
            "space": {
                "total": status.space.total,
                "free": status.space.free,
                "available": status.space.available,
            },
            "inodes": status.inodes,
            "open_handles": status.open_handles,
            "dirty_bytes": status.pending_bytes,
            "stripes_by_missing": {str(missing): n for missing, n in status.stripes_by_missing.items()},
            "commit": {
                "sequence": commit.sequence,
                "time_ns": commit.time_ns,
                "age_s": max(0.0, (clock.now_ns() - commit.time_ns) / 1e9),
                "failure": commit.failure,
            },
            "drives": [
                {
                    "number": drive.number,
                    "path": os.fspath(drive.path),
                    "state": str(drive.state),
                    "free": drive.free,
                    "total": drive.total,
                    "is_lagging": drive.number in slow.lagging,
                    "is_hanging": drive.number in slow.hanging,
                }
                for drive in status.drives
            ],
        }

    def _work(self) -> dict[str, Any]:
        """What was done so far."""
        done = self._fs.statistics()
        reads, writes = done.chunks.reads, done.chunks.writes
        return {
            "caches": {
                name: {"hits": hits, "misses": misses}
                for name, (hits, misses) in (
                    ("pages", done.caches.pages),
                    ("needle_heads", done.caches.heads),
                    ("stripe_records", done.caches.stripe_records),
                    ("listings", done.caches.listings),
                )
            },
            "commits": {
                "count": done.commits.commits,
                "failures": done.commits.failures,
                "duration_s": done.commits.duration_s,
                "gate_closed_s": done.commits.gate_closed_s,
            },
            "stripes": {
                "written": writes.stripes,
                "written_degraded": writes.stripes_degraded,
                "written_bytes": writes.payload_bytes,
                "read_degraded": reads.reads_degraded,
                "shards_damaged": reads.shards_damaged,
            },
            "read_ahead": {"taken": reads.ahead_taken, "wasted": reads.ahead_wasted},
            "threads": {
                "existing": done.workers.threads,
                "running": done.workers.running,
                "queued": done.workers.queued,
            },
        }

    def _job_fields(self) -> list[dict[str, Any]]:
        return [
            {
                "id": job.job_id,
                "kind": job.kind,
                "arguments": dict(job.arguments),
                "state": str(job.state),
                "done": job.done,
                "total": job.total,
                "unit": job.unit,
                "message": job.message,
                "rate": job.rate,
                "eta_s": job.eta_s,
            }
            for job in self._jobs.runner.jobs()
            if not job.is_finished
        ]

    def _processes(self) -> list[dict[str, Any]]:
        return [
            {
                "pid": None if counts.identity is None else counts.identity.pid,
                "command": None if counts.identity is None else counts.identity.command,
                "uid": None if counts.identity is None else counts.identity.uid,
                "requests": counts.requests,
                "duration_s": counts.duration_ns / 1e9,
                "bytes_read": counts.bytes_read,
                "bytes_written": counts.bytes_written,
            }
            for counts in self._requests.processes.counts()
        ]


def _request_fields(tally: Tally) -> dict[str, Any]:
    return {
        "count": tally.count,
        "errors": {errno.errorcode.get(code, str(code)): count for code, count in tally.errors.items()},
        "duration_s": tally.duration_ns / 1e9,
        "buckets": {str(index): count for index, count in enumerate(tally.buckets) if count},
    }
