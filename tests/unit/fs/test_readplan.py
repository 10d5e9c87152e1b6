"""Read plans against a model that answers byte by byte: memory first, then extents, then zeros."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ciaosfs.base.types import Codec, Extent
from ciaosfs.fs.overlay import Segment
from ciaosfs.fs.readplan import Piece, plan_read

SPACE = 80


def runs(draw: st.DrawFn, top: int) -> list[tuple[int, int]]:
    """Ranges in order, without overlaps, some of them touching."""
    edges = draw(st.lists(st.integers(0, top), unique=True, max_size=12).map(sorted))
    kept = draw(st.lists(st.booleans(), min_size=len(edges), max_size=len(edges)))
    return [(low, high) for low, high, keep in zip(edges, edges[1:], kept, strict=False) if keep]


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[Segment], list[Extent]]:
    pending = [Segment(low, bytes(range(low, high))) for low, high in runs(draw, SPACE)]
    extents = []
    for number, (low, high) in enumerate(runs(draw, SPACE)):
        packed = draw(st.booleans())
        length = high - low
        extents.append(
            Extent(low, length, number + 1, 7 * number, 5, Codec.ZSTD, 3)
            if packed
            else Extent(low, length, number + 1, 7 * number, length, Codec.RAW, 0)
        )
    return pending, extents


Source = tuple[str, int] | tuple[str, int, int]


def expected_byte(pending: list[Segment], extents: list[Extent], at: int) -> Source:
    for segment in pending:
        if segment.offset <= at < segment.end:
            return ("memory", segment.data[at - segment.offset])
    for extent in extents:
        if extent.offset <= at < extent.offset + extent.length:
            return ("extent", extent.stripe_id, at - extent.offset)
    return ("hole", 0)


def planned_bytes(piece: Piece) -> list[Source]:
    if piece.data is not None:
        assert piece.extent is None
        assert len(piece.data) == piece.length
        return [("memory", value) for value in bytes(piece.data)]
    if piece.extent is not None:
        assert piece.start >= 0
        assert piece.start + piece.length <= piece.extent.length
        return [("extent", piece.extent.stripe_id, piece.start + n) for n in range(piece.length)]
    return [("hole", 0)] * piece.length


@settings(max_examples=300, deadline=None)
@given(layouts(), st.integers(0, SPACE + 5), st.integers(1, 60))
def test_every_byte_comes_from_where_it_lies(
    layout: tuple[list[Segment], list[Extent]], start: int, length: int
) -> None:
    pending, extents = layout
    end = start + length
    touching = [segment for segment in pending if segment.offset < end and segment.end > start]
    pieces = plan_read(touching, extents, start, end)
    assert all(piece.length > 0 for piece in pieces)
    answer = [source for piece in pieces for source in planned_bytes(piece)]
    assert answer == [expected_byte(pending, extents, at) for at in range(start, end)]


def test_a_segment_in_the_middle_of_an_extent_cuts_it_in_two() -> None:
    extent = Extent(0, 100, 9, 0, 100, Codec.RAW, 0)
    pieces = plan_read([Segment(40, b"m" * 20)], [extent], 10, 90)
    assert [(piece.length, piece.start, piece.extent is extent) for piece in pieces] == [
        (30, 10, True),
        (20, 0, False),
        (30, 60, True),
    ]


def test_what_lies_in_memory_is_not_copied() -> None:
    data = b"m" * 1000
    (piece,) = plan_read([Segment(0, data)], [], 100, 900)
    assert isinstance(piece.data, memoryview)
    assert piece.data.obj is data


def test_nothing_but_a_hole_is_one_piece() -> None:
    assert plan_read([], [], 1 << 40, (1 << 40) + 4096) == [Piece(4096)]
