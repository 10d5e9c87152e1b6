"""Gives memory back to the system that a load has left behind.

The heap of a load is mostly buffers of 1 MiB between small things that live on, so glibc keeps it when they are freed:
after streams and many small files 30 MiB were in use and 130 MiB free, all of them resident. malloc_trim(3) gives back whole
pages wherever they are, in 6 to 17 ms for those 130 MiB. Meanwhile nobody else gets memory: so it is done in a thread, when
nobody asks for anything.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import trio

from ciaosfs.drive.workers import Workers

LOOK_S = 1.0
QUIET_LOOKS = (1, 10)
"""After so many looks without a request: soon, and again when what was written last has been committed, too."""
APART_LOOKS = 9
"""At least so many from one time to the next: requests may come in any rhythm."""


def find_trim() -> Callable[[], object] | None:
    """malloc_trim(3) of the C library, to be called in a thread; None where it has none, as musl."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if trim is None else lambda: trim(ctypes.c_size_t(0))


async def give_back(workers: Workers, count_requests: Callable[[], int], trim: Callable[[], object]) -> None:
    """Have `trim` called whenever there are no requests for a while. For ever."""
    before, quiet, since = -1, 0, APART_LOOKS
    while True:
        await trio.sleep(LOOK_S)
        now = count_requests()
        quiet = quiet + 1 if now == before else 0
        before = now
        since += 1
        if quiet in QUIET_LOOKS and since >= APART_LOOKS:
            await workers.run(trim)
            since = 0
