"""Counts of FUSE requests: how many of each kind, how long they took, how much they carried, who made them.

Each request is counted. About every SAMPLE_GAP-th of a kind is a *sample*: it is timed, attributed to its process, and
stands for all since the sample before it (its *weight*), so that sums over samples estimate sums over requests. While
somebody *watches*, every request is a sample. Gaps vary, lest processes that take turns be seen one without the other.

This is in the way of each request: the wrapper in `fuse/errors.py` compares two numbers and adds 1, and the rest happens
in samples. `tools/bench_metrics.py` measures it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import cycle

from ciaosfs.base.histogram import BUCKETS
from ciaosfsd.metrics.processes import Processes

SAMPLE_GAP = 128
"""On average. A sample costs 0.9 us in a loop of nothing else, and several times that amid requests, which empty the
processor's caches of it. In one daemon that switched counting on and off, a lookup of 18 us took 0.4 % longer with this
gap and 1.4 % with 32."""
_GAPS = random.Random(0).sample(range(1, 2 * SAMPLE_GAP), 2 * SAMPLE_GAP - 1)
WATCH_S = 10.0
"""How long after somebody looked every request is a sample: until they look again, if they look often."""

Sample = tuple[int, int]
"""When it began, by the monotonic clock in nanoseconds, and its weight."""


class Tally:
    """One kind of request. `count` and `due` belong to the wrapper: from the `due`-th request on, the next is a sample."""

    __slots__ = ("_sampled", "buckets", "bytes", "count", "due", "duration_ns", "errors", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.due = 0
        self.bytes = 0
        """Of file content that was carried."""
        self.errors: dict[int, int] = {}
        """How often each errno was the answer."""
        self.buckets = [0] * BUCKETS
        """The weights of samples, by `histogram.bucket_of` their duration."""
        self.duration_ns = 0
        """Sum of duration times weight."""
        self._sampled = 0

    def weigh(self) -> int:
        """Take over the requests since the last sample."""
        weight = self.count - self._sampled
        self._sampled = self.count
        return weight

    def failed(self, code: int) -> None:
        self.errors[code] = self.errors.get(code, 0) + 1


class Requests:
    """Every kind of request of one mount. For the loop."""

    def __init__(self, processes: Processes | None = None) -> None:
        self.tallies: dict[str, Tally] = {}
        self.processes = Processes() if processes is None else processes
        self.openers: dict[int, int] = {}
        """Which process opened a file handle: whoever uses it is taken for the same, the kernel does not say."""
        self._next_gap = cycle(_GAPS).__next__
        self._now: Callable[[], int] = time.monotonic_ns
        self._watched_until_ns = 0

    def tally(self, name: str) -> Tally:
        """The tally of one kind, made when it is asked for the first time."""
        return self.tallies.setdefault(name, Tally(name))

    def watch(self) -> None:
        """Somebody looks: for WATCH_S every request is a sample, and processes are looked up while they live."""
        self._watched_until_ns = self._now() + int(WATCH_S * 1e9)
        for tally in self.tallies.values():
            tally.due = 0

    def begin(self, tally: Tally) -> Sample:
        """A sample begins: the request that was just counted."""
        now = self._now()
        tally.due = 0 if now < self._watched_until_ns else tally.count + self._next_gap()
        return now, tally.weigh()

    def end(self, tally: Tally, sample: Sample, pid: int, carried: int = 0) -> None:
        """A sample ends. `pid` is the thread that made the request (0: not known), `carried` its bytes of content."""
        started, weight = sample
        now = self._now()
        duration_ns = now - started
        shift = duration_ns.bit_length() - 3  # histogram.bucket_of, without the call
        bucket = (shift << 2) + (duration_ns >> shift) if shift > 0 else duration_ns
        tally.buckets[bucket if bucket < BUCKETS else -1] += weight
        tally.duration_ns += duration_ns * weight
        self.processes.note(
            pid, weight, duration_ns, carried, tally.name == "write", is_watched=now < self._watched_until_ns
        )
