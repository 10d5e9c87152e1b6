"""Counts are exact, samples stand for all requests, and counting changes nothing that is answered."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
import trio
from ciaosfsd.fuse.errors import guarded
from ciaosfsd.metrics.processes import Processes
from ciaosfsd.metrics.requests import SAMPLE_GAP, WATCH_S, Requests

from ciaosfs.base.errors import FsError
from ciaosfs.base.histogram import bucket_of


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.ns = 1_000_000

    def __call__(self) -> int:
        return self.ns


class Working:
    """Handlers that take a time each, and one that refuses."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._handles = 0

    def lookup(self, parent: int, name: bytes, ctx: Any) -> int:
        self._clock.ns += 10_000
        if name == b"absent":
            raise FsError(errno.ENOENT)
        return parent

    async def open(self, ino: int, flags: int, ctx: Any) -> Any:
        self._handles += 1
        return SimpleNamespace(fh=self._handles)

    async def read(self, fh: int, offset: int, size: int) -> bytes:
        self._clock.ns += 50_000
        return bytes(size)

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        return len(data)

    def release(self, fh: int) -> None: ...

    def forget(self, counts: object) -> None: ...


def process(pid: int) -> Any:
    return SimpleNamespace(pid=pid)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def requests(clock: Clock) -> Requests:
    made = Requests()
    made._now = clock
    return made


@pytest.fixture
def operations(clock: Clock, requests: Requests) -> pyfuse3.Operations:
    return guarded(Working(clock), requests)


def call(function: Any, *arguments: Any) -> Any:
    async def main() -> Any:
        return await function(*arguments)

    return trio.run(main)


def call_often(times: int, function: Any, *arguments: Any) -> None:
    async def main() -> None:
        for _ in range(times):
            await function(*arguments)

    trio.run(main)


def test_every_request_is_counted_and_samples_stand_for_all(
    operations: pyfuse3.Operations, requests: Requests
) -> None:
    call_often(5000, operations.lookup, 1, b"name", process(7))
    tally = requests.tally("lookup")
    assert tally.count == 5000
    weights = sum(tally.buckets)
    assert 5000 - 2 * SAMPLE_GAP < weights <= 5000
    assert tally.buckets[bucket_of(10_000)] == weights
    assert tally.duration_ns == 10_000 * weights
    assert [counts.requests for counts in requests.processes.counts()] == [weights]


def test_processes_that_take_turns_are_both_seen(operations: pyfuse3.Operations, requests: Requests) -> None:
    async def main() -> None:
        for _ in range(8000):
            await operations.lookup(1, b"name", process(os.getpid()))
            await operations.lookup(1, b"name", process(os.getppid()))

    trio.run(main)
    counts = {found.identity.pid: found.requests for found in requests.processes.counts() if found.identity}
    assert set(counts) == {os.getpid(), os.getppid()}
    assert min(counts.values()) > 0.3 * 16000


def test_while_somebody_watches_every_request_is_a_sample_and_then_no_more(
    operations: pyfuse3.Operations, requests: Requests, clock: Clock
) -> None:
    requests.watch()
    tally = requests.tally("lookup")
    for number in range(1, 100):
        call(operations.lookup, 1, b"name", process(7))
        assert sum(tally.buckets) == number
    clock.ns += int(WATCH_S * 1e9)
    call_often(1000, operations.lookup, 1, b"name", process(7))
    assert tally.due > tally.count - 2 * SAMPLE_GAP
    assert 1099 - 2 * SAMPLE_GAP < sum(tally.buckets) <= 1099


@pytest.mark.parametrize("is_watched", [False, True])
def test_refusals_are_answered_and_counted_by_errno(
    operations: pyfuse3.Operations, requests: Requests, *, is_watched: bool
) -> None:
    if is_watched:
        requests.watch()
    for _ in range(40):
        with pytest.raises(pyfuse3.FUSEError) as caught:
            call(operations.lookup, 1, b"absent", process(7))
        assert caught.value.errno == errno.ENOENT
    assert requests.tally("lookup").errors == {errno.ENOENT: 40}
    assert requests.tally("lookup").count == 40


@pytest.mark.parametrize("is_watched", [False, True])
def test_bytes_are_exact_and_attributed_to_who_opened(
    operations: pyfuse3.Operations, requests: Requests, *, is_watched: bool
) -> None:
    if is_watched:
        requests.watch()
    fh = call(operations.open, 5, os.O_RDWR, process(os.getpid())).fh
    assert requests.openers == {fh: os.getpid()}
    call_often(200, operations.read, fh, 0, 4096)
    call_often(100, operations.write, fh, 0, b"x" * 1000)
    assert requests.tally("read").bytes == 200 * 4096
    assert requests.tally("write").bytes == 100 * 1000
    (mine,) = requests.processes.counts()
    assert mine.identity is not None and mine.identity.pid == os.getpid()
    slack = 0 if is_watched else 2 * SAMPLE_GAP
    assert (200 - slack) * 4096 <= mine.bytes_read <= 200 * 4096
    assert (100 - slack) * 1000 <= mine.bytes_written <= 100 * 1000
    call(operations.release, fh)
    assert requests.openers == {}


def test_what_is_under_way_is_weighed_once(requests: Requests) -> None:
    class Waiting:
        async def fsync(self, fh: int, datasync: bool) -> None:
            await trio.lowlevel.checkpoint()

    operations = guarded(Waiting(), requests)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(operations.fsync, 3, True)

    trio.run(main)
    assert requests.tally("fsync").count == 500
    assert sum(requests.tally("fsync").buckets) <= 500


def test_a_long_request_falls_into_the_last_bucket(requests: Requests, clock: Clock) -> None:
    tally = requests.tally("fsync")
    tally.count += 1
    sample = requests.begin(tally)
    clock.ns += 10**15
    requests.end(tally, sample, 0)
    assert tally.buckets[-1] == 1


def test_names_are_looked_up_while_watched_at_once_and_else_when_asked() -> None:
    for is_watched in (True, False):
        processes = Processes()
        processes.note(os.getpid(), 1, 1, 0, False, is_watched=is_watched)
        (mine,) = processes.counts()
        assert mine.identity is not None
        assert (mine.identity.pid, mine.identity.uid) == (os.getpid(), os.geteuid())
        assert mine.identity.command
