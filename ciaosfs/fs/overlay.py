"""What has been written to one file but is not yet in its extents: a map of file ranges to bytes in memory.

Pure: no clock, no I/O, no await. Segments never overlap and always hold the newest bytes of their range, so a
read takes a segment where there is one and the extents elsewhere. A segment is *dirty*, or *in flight* once it has
been handed to a stripe that is being written. Newer writes and truncation carve both kinds, so when a flight lands,
the ranges that still carry its mark are exactly those that no later change has replaced.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from ciaosfs.base.types import Buffer


@dataclass(slots=True, eq=False)
class Segment:
    """File bytes `[offset, offset + len(data))`; `flight` is None while dirty, else the mark of its flight."""

    offset: int
    data: Buffer
    flight: object | None = None

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


def _part(data: Buffer, start: int, stop: int) -> Buffer:
    """`data[start:stop]`, copied when keeping a view would pin a buffer more than twice as large."""
    view = memoryview(data)[start:stop]
    base = view.obj
    size = len(base) if isinstance(base, (bytes, bytearray)) else len(view)
    return bytes(view) if 2 * len(view) < size else view


class Overlay:
    """The pending segments of one file, in offset order.

    `dirty_bytes` and `flight_bytes` count what the segments hold. Every change returns nothing; callers read the
    two counters before and after when they keep totals.
    """

    __slots__ = ("_segments", "_starts", "dirty_bytes", "flight_bytes")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._segments: list[Segment] = []
        self.dirty_bytes = 0
        self.flight_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    @property
    def end(self) -> int:
        """End of the last segment, 0 when there is none."""
        return self._segments[-1].end if self._segments else 0

    def write(self, offset: int, data: Buffer) -> None:
        """Put `data` (not empty, never changed afterwards) at `offset`, replacing what lay there."""
        starts = self._starts
        if not starts or offset >= self._segments[-1].end:  # the common case: appending
            starts.append(offset)
            self._segments.append(Segment(offset, data))
        else:
            self._carve(offset, offset + len(data))
            index = bisect_left(starts, offset)
            starts.insert(index, offset)
            self._segments.insert(index, Segment(offset, data))
        self.dirty_bytes += len(data)

    def truncate(self, size: int) -> None:
        """Forget everything at and beyond `size`."""
        if self._segments and self._segments[-1].end > size:
            self._carve(size, self._segments[-1].end)

    def clear(self) -> None:
        """Forget everything; flights that still carry these ranges will find nothing to land."""
        self._starts.clear()
        self._segments.clear()
        self.dirty_bytes = self.flight_bytes = 0

    def overlapping(self, start: int, end: int) -> list[Segment]:
        """The segments that touch `[start, end)`, in order."""
        first = bisect_right(self._starts, start) - 1
        if first < 0 or self._segments[first].end <= start:
            first += 1
        last = bisect_left(self._starts, end)
        return self._segments[first:last]

    def take(self, flight: object, bytes_max: int) -> list[Segment]:
        """Mark up to `bytes_max` dirty bytes, lowest offsets first, as in flight; the last segment is split to fit.

        Returns the marked segments as they are now; the caller reads their offset and data at once, since later
        carving replaces the objects in the map.
        """
        taken: list[Segment] = []
        room = bytes_max
        for index, segment in enumerate(self._segments):
            if room == 0:
                break
            if segment.flight is not None:
                continue
            length = len(segment.data)
            if length > room:
                self._split(index, segment.offset + room)
                segment = self._segments[index]
                length = room
            segment.flight = flight
            taken.append(segment)
            room -= length
        moved = bytes_max - room
        self.dirty_bytes -= moved
        self.flight_bytes += moved
        return taken

    def land(self, flight: object, start: int = 0, limit: int = sys.maxsize) -> list[tuple[int, int]]:
        """Remove what still carries `flight`; return those ranges as (start, end), adjacent ones joined.

        Only segments that begin at or after `start`, and the first `limit` ranges of them.
        """
        if len(self._segments) == 1 and self._starts[0] >= start and self._segments[0].flight is flight:
            [segment] = self._segments  # the common case: a small file
            self.clear()
            return [(segment.offset, segment.end)]
        ranges: list[tuple[int, int]] = []
        kept: list[Segment] = []
        first = stop = bisect_left(self._starts, start)
        while stop < len(self._segments):
            segment = self._segments[stop]
            if segment.flight is not flight:
                kept.append(segment)
            elif ranges and ranges[-1][1] == segment.offset:
                ranges[-1] = (ranges[-1][0], segment.end)
            elif len(ranges) < limit:
                ranges.append((segment.offset, segment.end))
            else:
                break
            stop += 1
        self.flight_bytes -= sum([end - begin for begin, end in ranges])
        self._segments[first:stop] = kept
        self._starts[first:stop] = [segment.offset for segment in kept]
        return ranges

    def revert(self, flight: object) -> None:
        """A flight failed: what still carries its mark is dirty again."""
        for segment in self._segments:
            if segment.flight is flight:
                segment.flight = None
                self.flight_bytes -= len(segment.data)
                self.dirty_bytes += len(segment.data)

    def _count(self, segment: Segment, delta: int) -> None:
        if segment.flight is None:
            self.dirty_bytes += delta
        else:
            self.flight_bytes += delta

    def _split(self, index: int, at: int) -> None:
        """Cut the segment at `index` in two at file offset `at`; both halves keep its mark."""
        segment = self._segments[index]
        cut = at - segment.offset
        view = memoryview(segment.data)
        left = Segment(segment.offset, view[:cut], segment.flight)
        right = Segment(at, view[cut:], segment.flight)
        self._segments[index : index + 1] = [left, right]
        self._starts[index : index + 1] = [segment.offset, at]

    def _carve(self, start: int, end: int) -> None:
        """Remove `[start, end)` from whatever covers it."""
        first = bisect_right(self._starts, start) - 1
        if first < 0 or self._segments[first].end <= start:
            first += 1
        last = bisect_left(self._starts, end)
        if first >= last:
            return
        pieces: list[Segment] = []
        for segment in self._segments[first:last]:
            self._count(segment, -len(segment.data))
            if segment.offset < start:
                pieces.append(
                    Segment(segment.offset, _part(segment.data, 0, start - segment.offset), segment.flight)
                )
            if segment.end > end:
                kept = _part(segment.data, end - segment.offset, len(segment.data))
                pieces.append(Segment(end, kept, segment.flight))
        for piece in pieces:
            self._count(piece, len(piece.data))
        self._segments[first:last] = pieces
        self._starts[first:last] = [piece.offset for piece in pieces]
