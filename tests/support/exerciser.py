"""One file worked on by several processes under locks, through every door the kernel has to its pages.

Run as `python -m tests.support.exerciser FILE SEED OPERATIONS`: the file is divided into records of one
page. Each step locks a run of records with fcntl, reads them through one door, checks that each is whole
(its stamp names the record and the generation, and fills the page), writes the next generation through
another door and reads it back through a third. A stale page, a lost or torn write shows as a record that is
not what the lock holder left.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import struct
import sys
from pathlib import Path

PAGE = 4096
RECORDS = 96
STAMP = struct.Struct("<QQ")
DOORS = ("plain", "direct", "map")


def record(number: int, generation: int) -> bytes:
    """A page filled with its number and generation."""
    return STAMP.pack(number, generation) * (PAGE // STAMP.size)


def generation_of(page: bytes, number: int) -> int:
    """The generation of a record read back; AssertionError when the page is not one whole record."""
    found, generation = STAMP.unpack_from(page)
    assert found == number and page == record(number, generation), (
        f"record {number} holds pieces of {sorted({STAMP.unpack_from(page, at) for at in range(0, PAGE, 16)})}"
    )
    return int(generation)


class SharedFile:
    """The file, open through three doors."""

    def __init__(self, path: Path) -> None:
        self._plain = os.open(path, os.O_RDWR)
        self._direct = os.open(path, os.O_RDWR | os.O_DIRECT)
        self._map = mmap.mmap(self._plain, RECORDS * PAGE)
        self._aligned = mmap.mmap(-1, RECORDS * PAGE)

    def lock(self, first: int, count: int) -> None:
        fcntl.lockf(self._plain, fcntl.LOCK_EX, count * PAGE, first * PAGE)

    def unlock(self, first: int, count: int) -> None:
        fcntl.lockf(self._plain, fcntl.LOCK_UN, count * PAGE, first * PAGE)

    def read(self, door: str, first: int, count: int) -> bytes:
        start, length = first * PAGE, count * PAGE
        if door == "map":
            return self._map[start : start + length]
        if door == "direct":
            got = os.preadv(self._direct, [memoryview(self._aligned)[:length]], start)
            return self._aligned[:got]
        return os.pread(self._plain, length, start)

    def write(self, door: str, first: int, data: bytes) -> None:
        start = first * PAGE
        if door == "map":
            self._map[start : start + len(data)] = data
        elif door == "direct":
            self._aligned[: len(data)] = data
            assert os.pwritev(self._direct, [memoryview(self._aligned)[: len(data)]], start) == len(data)
        else:
            assert os.pwrite(self._plain, data, start) == len(data)

    def sync(self) -> None:
        os.fdatasync(self._plain)


def exercise(path: Path, seed: int, operations: int) -> None:
    """Carry out the steps; AssertionError at the first record that is wrong."""
    dice = random.Random(seed)
    shared = SharedFile(path)
    for step in range(operations):
        first = dice.randrange(RECORDS)
        count = dice.randrange(1, min(8, RECORDS - first) + 1)
        reading, writing, again = (dice.choice(DOORS) for _ in range(3))
        shared.lock(first, count)
        try:
            data = shared.read(reading, first, count)
            old = [
                generation_of(data[at * PAGE : (at + 1) * PAGE], first + at)
                for at in range(len(data) // PAGE)
            ]
            assert len(old) == count, f"step {step}: {len(data)} bytes of {count} records through {reading}"
            new = b"".join(record(first + at, generation + 1) for at, generation in enumerate(old))
            shared.write(writing, first, new)
            assert shared.read(again, first, count) == new, (
                f"step {step}: records {first}+{count} written through {writing}, other bytes through {again}"
            )
        finally:
            shared.unlock(first, count)
        if dice.random() < 0.02:
            shared.sync()


def prepare(path: Path) -> None:
    path.write_bytes(b"".join(record(number, 0) for number in range(RECORDS)))


def total(path: Path) -> int:
    """How many record writes the file has seen; checks that every record is whole."""
    data = path.read_bytes()
    return sum(generation_of(data[number * PAGE : (number + 1) * PAGE], number) for number in range(RECORDS))


if __name__ == "__main__":
    exercise(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
