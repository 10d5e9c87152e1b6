"""Gives memory back to the system that a load has left behind.

The heap of a load is mostly buffers of 1 MiB between small things that live on, so glibc keeps it when they are freed:
after streams and many small files 30 MiB were in use and 130 MiB free, all of them resident. malloc_trim(3) gives back whole
pages wherever they are, in 6 to 17 ms for those 130 MiB. Meanwhile nobody else gets memory: so it is done in a thread, when
nobody asks for anything; and now and then under a load that never rests, for which the heap would grow at each change of the
kind of load, to 261 MiB in twelve rounds of the benchmark.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import trio

from ciaosfs.base import limits
from ciaosfs.drive.workers import Workers

LOOK_S = 1.0
QUIET_LOOKS = (1, 10)
"""After so many looks without a request: soon, and again when what was written last has been committed, too."""
APART_LOOKS = 9
"""At least so many from one time to the next: requests may come in any rhythm."""
HEAVY_BYTES = 192 * limits.MIB
"""A process larger than this does not wait until it is quiet. With 160 MiB, small files were read 7 % slower afterwards, and
the most that it came to in the benchmark was hardly less."""
HEAVY_LOOKS = 5
"""But so many looks from one time to the next."""
STATM = Path("/proc/self/statm")


def find_trim() -> Callable[[], object] | None:
    """malloc_trim(3) of the C library, to be called in a thread; None where it has none, as musl."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if trim is None else lambda: trim(ctypes.c_size_t(0))


def resident_bytes() -> int:
    """What this process occupies in memory."""
    return int(STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def give_back(
    workers: Workers,
    count_requests: Callable[[], int],
    trim: Callable[[], object],
    resident: Callable[[], int] = resident_bytes,
) -> None:
    """Have `trim` called whenever there are no requests for a while, and when the process has grown large. For ever."""
    before, quiet, since = -1, 0, APART_LOOKS
    while True:
        await trio.sleep(LOOK_S)
        now = count_requests()
        quiet = quiet + 1 if now == before else 0
        before = now
        since += 1
        is_quiet = quiet in QUIET_LOOKS and since >= APART_LOOKS
        if is_quiet or (since >= HEAVY_LOOKS and resident() > HEAVY_BYTES):
            await workers.run(trim)
            since = 0
