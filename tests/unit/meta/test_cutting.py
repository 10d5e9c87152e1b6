"""Cutting and joining extents never changes which bytes a file has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ciaosfs.base.types import Codec, Extent
from ciaosfs.meta.cutting import cut, join
from tests.unit.meta.support import raw, zstd


def test_cut_outside_leaves_nothing() -> None:
    extent = raw(100, 50, 1)
    assert cut(extent, 0, 100) is None
    assert cut(extent, 150, 200) is None
    assert cut(extent, 120, 120) is None


def test_cut_around_returns_the_extent_itself() -> None:
    extent = zstd(100, 50, 1)
    assert cut(extent, 0, 1000) is extent


def test_cut_of_raw_moves_in_the_stripe() -> None:
    assert cut(raw(100, 50, 1, 7), 110, 130) == raw(110, 20, 1, 17)


def test_cut_of_compressed_skips_in_the_block() -> None:
    assert cut(zstd(100, 50, 1, 7, 30, 3), 110, 130) == zstd(110, 20, 1, 7, 30, 13)


def test_join_only_what_continues() -> None:
    assert join(raw(0, 10, 1, 5), raw(10, 4, 1, 15)) == raw(0, 14, 1, 5)
    assert join(raw(0, 10, 1, 5), raw(11, 4, 1, 15)) is None, "a gap in the file"
    assert join(raw(0, 10, 1, 5), raw(10, 4, 1, 16)) is None, "a gap in the stripe"
    assert join(raw(0, 10, 1, 5), raw(10, 4, 2, 15)) is None, "another stripe"
    assert join(zstd(0, 10, 1, 5, 7, 0), zstd(10, 4, 1, 5, 7, 10)) == zstd(0, 14, 1, 5, 7, 0)
    assert join(zstd(0, 10, 1, 5, 7, 0), zstd(10, 4, 1, 12, 7, 0)) is None, "the next compressed block"
    assert join(zstd(0, 10, 1, 5, 7, 0), raw(10, 4, 1, 12)) is None


def decoded(extent: Extent) -> list[tuple[int, int, int]]:
    """A name for each byte: where in the stripe, or of which block, it comes from."""
    block = extent.stripe_offset if extent.codec == Codec.ZSTD else -1
    first = extent.skip if extent.codec == Codec.ZSTD else extent.stripe_offset
    return [(extent.stripe_id, block, first + index) for index in range(extent.length)]


extents = st.builds(
    lambda codec, offset, length, place, skip: (
        raw(offset, length, 1, place) if codec == Codec.RAW else zstd(offset, length, 1, place, 9, skip)
    ),
    st.sampled_from(Codec),
    st.integers(0, 40),
    st.integers(1, 40),
    st.integers(0, 40),
    st.integers(0, 40),
)


@given(extents, st.integers(0, 90), st.integers(0, 90))
def test_a_cut_has_the_bytes_of_its_range(extent: Extent, start: int, end: int) -> None:
    low, high = max(extent.offset, start), min(extent.offset + extent.length, end)
    part = cut(extent, start, end)
    if part is None:
        assert low >= high
        return
    assert (part.offset, part.offset + part.length) == (low, high)
    assert decoded(part) == decoded(extent)[low - extent.offset : high - extent.offset]
    assert part.codec == Codec.ZSTD or (part.skip, part.stored_length) == (0, part.length)


@given(extents, st.integers(1, 39))
def test_two_parts_join_to_the_whole(extent: Extent, at: int) -> None:
    middle = extent.offset + at
    left, right = cut(extent, 0, middle), cut(extent, middle, 1000)
    if left is not None and right is not None:
        assert join(left, right) == extent
