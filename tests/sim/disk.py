"""One simulated file: what it holds, what of it is certain, and what a power cut leaves.

The crash contract is that of `ciaosfs/drive/interface.py`: bytes before the last sync are certain, of those since any
part may be there, sector by sector and in any order. A cut of the length is asked one thing more, which file systems
with a journal keep: when it was lost, so was everything written after it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

SECTOR_BYTES = 512
PAGE_BYTES = 4096


class Fate(Enum):
    """What becomes of the bytes of one file that were not synced."""

    LOST = "lost"
    KEPT = "kept"
    WRITES = "each write is kept or lost"
    SECTORS = "each sector is kept or lost"
    EARLY = "what was written up to some moment is kept, the last write torn"
    LATE = "what was written from some moment on is kept"


class _Change(NamedTuple):
    """`new` took the place of `old` at `offset`; `new` None cuts the file there. `size`: its length before."""

    offset: int
    new: bytes | None
    old: bytes
    size: int


@dataclass
class Disk:
    """The content as it is now, and every change since the last sync."""

    now: bytearray = field(default_factory=bytearray)
    since: list[_Change] = field(default_factory=list)
    holes: set[int] = field(default_factory=set)
    """Pages that were punched and not written again."""
    certain: bytearray | None = None
    """What a power cut leaves at least, once a sync has failed; None: `now` without what was done `since`."""

    def write(self, offset: int, data: bytes) -> None:
        self._change(offset, data)
        if self.holes:
            self.holes.difference_update(range(offset // PAGE_BYTES, -(-(offset + len(data)) // PAGE_BYTES)))

    def punch(self, offset: int, length: int) -> None:
        """Whole pages inside the range only; the length of the file stays."""
        start = -(-offset // PAGE_BYTES) * PAGE_BYTES
        end = min((offset + length) // PAGE_BYTES * PAGE_BYTES, len(self.now))
        if start < end:
            self._change(start, bytes(end - start))
            self.holes.update(range(start // PAGE_BYTES, -(-end // PAGE_BYTES)))

    def truncate(self, size: int) -> None:
        if size < len(self.now):
            self.since.append(_Change(size, None, bytes(self.now[size:]), len(self.now)))
            del self.now[size:]
        elif size > len(self.now):
            self._change(len(self.now), bytes(size - len(self.now)))

    def _change(self, offset: int, data: bytes) -> None:
        self.since.append(_Change(offset, data, bytes(self.now[offset : offset + len(data)]), len(self.now)))
        put(self.now, offset, data)

    @property
    def used_bytes(self) -> int:
        """What it occupies."""
        return (-(-len(self.now) // PAGE_BYTES) - len(self.holes)) * PAGE_BYTES

    def synced(self) -> None:
        if self.certain is not None:
            for change in self.since:
                if change.new is None:
                    del self.certain[change.offset :]
                else:
                    put(self.certain, change.offset, change.new)
        self.since.clear()

    def sync_failed(self, dice: random.Random) -> None:
        """The kernel could not write some of it, says so once, and will not try again: it can be read until a cut."""
        self.certain = self.after_cut(dice).now
        self.since.clear()

    def copy(self) -> Disk:
        certain = None if self.certain is None else bytearray(self.certain)
        return Disk(bytearray(self.now), list(self.since), set(self.holes), certain)

    def after_cut(self, dice: random.Random) -> Disk:
        """What is there when the power is back, all of it certain."""
        if not self.since and self.certain is None:
            return Disk(bytearray(self.now), [], set(self.holes))
        content = bytearray(self.now if self.certain is None else self.certain)
        for change in reversed(self.since if self.certain is None else []):
            put(content, change.offset, change.old)
            del content[change.size :]
        fate = dice.choice(list(Fate))
        pivot = dice.randrange(len(self.since) + 1)
        for number, change in enumerate(self.since):
            if change.new is None:
                if not _is_kept(fate, number, pivot, dice):
                    break
                del content[change.offset :]
            elif fate is Fate.SECTORS or (fate is Fate.EARLY and number == pivot):
                _tear(content, change.offset, change.new, dice)
            elif _is_kept(fate, number, pivot, dice):
                put(content, change.offset, change.new)
            if change.new is not None and fate is not Fate.LOST and dice.random() < 0.5:
                put(content, change.offset + len(change.new), b"")
        return Disk(content, [], {hole for hole in self.holes if not any(page(content, hole))})


def page(content: bytearray, number: int) -> bytearray:
    return content[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]


def put(content: bytearray, offset: int, data: bytes) -> None:
    """Write; what lies between the end and `offset` reads as zeros."""
    if len(content) < offset + len(data):
        content.extend(bytes(offset + len(data) - len(content)))
    content[offset : offset + len(data)] = data


def _is_kept(fate: Fate, number: int, pivot: int, dice: random.Random) -> bool:
    match fate:
        case Fate.LOST:
            return False
        case Fate.KEPT:
            return True
        case Fate.EARLY:
            return number < pivot
        case Fate.LATE:
            return number >= pivot
    return dice.random() < 0.5


def _tear(content: bytearray, offset: int, data: bytes, dice: random.Random) -> None:
    for at in range(0, len(data), SECTOR_BYTES):
        if dice.random() < 0.5:
            put(content, offset + at, data[at : at + SECTOR_BYTES])
