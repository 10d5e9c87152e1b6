"""The list of parts: what is written is read back, and whatever is read fits the file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciaosfs.base import limits
from ciaosfs.base.errors import UsageError
from ciaosfs.codec.parts import decode_parts, encode_parts, parts_of

SIZES = st.one_of(st.integers(0, 3), st.integers(0, 1 << 40))
LISTS = st.one_of(
    st.lists(SIZES, min_size=1, max_size=60),
    st.builds(lambda size, count: [size] * count, SIZES, st.integers(1, limits.PARTS_MAX)),
)


@given(LISTS)
def test_what_is_written_is_read_back(sizes: list[int]) -> None:
    assert decode_parts(encode_parts(sizes)) == sizes


@given(st.binary(max_size=60))
def test_whatever_is_read_is_refused_or_the_one_way_to_write_it(value: bytes) -> None:
    try:
        sizes = decode_parts(value)
    except UsageError:
        return
    assert encode_parts(sizes) == value


@given(st.one_of(st.none(), st.binary(max_size=20), LISTS.map(encode_parts)), SIZES)
def test_the_parts_are_the_whole_file(value: bytes | None, size: int) -> None:
    assert sum(parts_of(value, size)) == size


@given(LISTS, st.integers(1, 1000))
def test_what_plain_writes_have_appended_is_one_more_part(sizes: list[int], more: int) -> None:
    value = encode_parts(sizes)
    assert parts_of(value, sum(sizes)) == sizes
    assert parts_of(value, sum(sizes) + more) == [*sizes, more]
    if sum(sizes):
        assert parts_of(value, sum(sizes) - 1) == [sum(sizes) - 1]


def test_ten_thousand_different_sizes_fit() -> None:
    sizes = [100_000 + 7 * number for number in range(limits.PARTS_MAX)]
    assert decode_parts(encode_parts(sizes)) == sizes


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [1] * (limits.PARTS_MAX + 1),
        [-1],
        [1 << 62, 1],
        [(1 << 40) + 2 * n for n in range(limits.PARTS_MAX)],
    ],
    ids=["none", "too many", "negative", "too large", "too long"],
)
def test_what_cannot_be_kept_is_refused_with_a_sentence(sizes: list[int]) -> None:
    with pytest.raises(UsageError, match=r"\w+ \w+"):
        encode_parts(sizes)
