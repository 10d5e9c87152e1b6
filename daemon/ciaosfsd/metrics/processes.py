"""Which processes the requests come from: a bounded table by thread, with names from /proc.

A name is looked up when the table is read, and at the first request of a thread while somebody watches: then those
that end soon have one, too. Only what never waits for the process is read: its command line could lie in pages of a
file on this very mount.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

THREADS_MAX = 512
LOOKUPS_MAX = 64
"""Names looked up at one reading of the table, 20 us each."""
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Identity:
    """A process: its number (that of its first thread), the name of its command, who it belongs to."""

    pid: int
    command: str
    uid: int


@dataclass(frozen=True, slots=True)
class ProcessCounts:
    """Estimates since the table knows the process. `identity` is None for those that ended before they were looked up."""

    identity: Identity | None
    requests: int
    duration_ns: int
    bytes_read: int
    bytes_written: int


class _Thread:
    __slots__ = ("duration_ns", "identity", "is_sought", "read", "requests", "written")

    def __init__(self) -> None:
        self.requests = self.duration_ns = self.read = self.written = 0
        self.identity: Identity | None = None
        self.is_sought = False


class Processes:
    """At most THREADS_MAX threads; when there are more, those with the fewest requests are forgotten."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._threads: dict[int, _Thread] = {}

    def note(
        self, pid: int, requests: int, duration_ns: int, carried: int, is_write: bool, *, is_watched: bool
    ) -> None:
        """`requests` requests of thread `pid` (0: not known), each of this duration and with so many bytes."""
        thread = self._threads.get(pid)
        if thread is None:
            thread = self._threads[pid] = self._new(pid, is_watched)
        thread.requests += requests
        thread.duration_ns += requests * duration_ns
        if carried:
            if is_write:
                thread.written += requests * carried
            else:
                thread.read += requests * carried

    def _new(self, pid: int, is_watched: bool) -> _Thread:
        if len(self._threads) >= THREADS_MAX:
            busiest = sorted(self._threads.items(), key=lambda item: -item[1].requests)
            self._threads = dict(busiest[: THREADS_MAX // 2])
        thread = _Thread()
        if is_watched:
            self._seek(pid, thread)
        return thread

    def counts(self) -> list[ProcessCounts]:
        """Every process, the threads of each put together, those with the most requests first."""
        busiest = sorted(self._threads.items(), key=lambda item: -item[1].requests)
        unsought = [(pid, thread) for pid, thread in busiest if not thread.is_sought]
        for pid, thread in unsought[:LOOKUPS_MAX]:
            self._seek(pid, thread)
        sums: dict[int, list[_Thread]] = {}
        for _, thread in busiest:
            sums.setdefault(0 if thread.identity is None else thread.identity.pid, []).append(thread)
        return [
            ProcessCounts(
                threads[0].identity,
                sum(thread.requests for thread in threads),
                sum(thread.duration_ns for thread in threads),
                sum(thread.read for thread in threads),
                sum(thread.written for thread in threads),
            )
            for threads in sums.values()
        ]

    def _seek(self, pid: int, thread: _Thread) -> None:
        thread.is_sought = True
        thread.identity = identify(pid, self._proc) if pid else None


def identify(pid: int, proc: Path = PROC) -> Identity | None:
    """The process that the thread `pid` belongs to; None when it has ended."""
    try:
        status = (proc / str(pid) / "status").read_bytes()
        fields = dict(line.split(b":", 1) for line in status.splitlines() if b":" in line)
        leader, uid = int(fields[b"Tgid"]), int(fields[b"Uid"].split()[1])
        command = (proc / str(leader) / "comm").read_bytes()
    except (OSError, KeyError, ValueError, IndexError):
        return None
    return Identity(leader, command.rstrip(b"\n").decode(errors="backslashreplace"), uid)
