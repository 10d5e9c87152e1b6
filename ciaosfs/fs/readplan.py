"""From a read request to the pieces that answer it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ciaosfs.base.types import Buffer, Extent
from ciaosfs.fs.overlay import Segment


class Piece(NamedTuple):
    """`length` bytes of the answer: from memory, from bytes `[start, start + length)` of an extent, or zeros."""

    length: int
    data: Buffer | None = None
    extent: Extent | None = None
    start: int = 0


def plan_read(pending: Sequence[Segment], extents: Sequence[Extent], start: int, end: int) -> list[Piece]:
    """Cover `[start, end)` with pieces in order: pending bytes win over extents, what neither has is a hole.

    Both sequences are in offset order, each without overlaps within itself.
    """
    pieces: list[Piece] = []
    at = start
    for segment in pending:
        low = max(segment.offset, start)
        if low > at:
            _plan_stored(pieces, extents, at, low)
        high = min(segment.end, end)
        view = memoryview(segment.data)[low - segment.offset : high - segment.offset]
        pieces.append(Piece(high - low, data=view))
        at = high
    if at < end:
        _plan_stored(pieces, extents, at, end)
    return pieces


def _plan_stored(pieces: list[Piece], extents: Sequence[Extent], start: int, end: int) -> None:
    at = start
    for extent in extents:
        low, high = max(extent.offset, at), min(extent.offset + extent.length, end)
        if low >= high:
            continue
        if low > at:
            pieces.append(Piece(low - at))
        pieces.append(Piece(high - low, extent=extent, start=low - extent.offset))
        at = high
    if at < end:
        pieces.append(Piece(end - at))
