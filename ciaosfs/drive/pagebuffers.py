"""Buffers that devices write into by themselves: whole pages, next to each other in physical memory where possible.

A read past the page cache (O_DIRECT) needs buffers that begin on a page. How fast it is depends on how scattered
their pages are: into pages of 4 KiB a virtual disk read 1 MiB at a time with 1,000 MiB/s, into huge pages with 2,000, since
each piece of memory takes one of its queue's 256 descriptors. So all buffers lie in one mapping, for which huge pages
are asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import weakref

_HUGE_PAGE_BYTES = 2 << 20


class PageBuffers:
    """At most `count_max` buffers of `length` bytes (a power of two from a page to a huge page).

    A buffer is taken back when nothing refers to it any more, in whatever thread that happens: neither a view nor a slice
    of one. `take` and `give_back` are for the loop.
    """

    def __init__(self, count_max: int, length: int) -> None:
        assert mmap.PAGESIZE <= length <= _HUGE_PAGE_BYTES and length & (length - 1) == 0
        self._count = count_max
        self._length = length
        self._type = ctypes.c_char * length
        self._memory: mmap.mmap | None = None
        self._start = 0
        self._free: list[int] = []
        self._owners: dict[int, weakref.ref[ctypes.Array[ctypes.c_char]]] = {}

    @property
    def is_mapped(self) -> bool:
        """Whether memory is taken from the system."""
        return self._memory is not None

    @property
    def free_count(self) -> int:
        return self._count if self._memory is None else len(self._free)

    def take(self) -> memoryview | None:
        """A buffer with any content; None when all are in use. The one given back last is the first to be used again."""
        if self._memory is None:
            self._map()
        if not self._free:
            return None
        assert self._memory is not None
        number = self._free.pop()
        owner = self._type.from_buffer(self._memory, self._start + number * self._length)
        self._owners[number] = weakref.ref(owner, lambda _: self._free.append(number))
        return memoryview(owner).cast("B")

    def give_back(self) -> None:
        """Return the memory to the system, unless a buffer is in use."""
        if self._memory is not None and len(self._free) == self._count:
            self._memory = None
            self._owners.clear()
            self._free.clear()

    def _map(self) -> None:
        self._memory = mmap.mmap(
            -1, self._count * self._length + _HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        with contextlib.suppress(OSError):  # a kernel without huge pages: slower, not wrong
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        first = ctypes.c_char.from_buffer(self._memory)
        self._start = -ctypes.addressof(first) % _HUGE_PAGE_BYTES
        self._free = list(range(self._count - 1, -1, -1))
