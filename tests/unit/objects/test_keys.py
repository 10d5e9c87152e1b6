"""Keys: what is one, and that none leads out of where it may go."""

from __future__ import annotations

import os.path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciaosfs.base import limits
from ciaosfs.base.errors import AccessError, UsageError
from ciaosfs.objects.keys import below, parse_key, parse_prefix, show

NAMES = st.one_of(
    st.text(min_size=1, max_size=8), st.sampled_from(["a", "b", ".", "..", "", "\udcff", "ä" * 130])
)
TEXTS = st.one_of(st.text(max_size=30), st.lists(NAMES, max_size=6).map("/".join))
PATHS = st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=4).map(tuple)


@given(TEXTS)
def test_a_key_is_refused_or_the_same_text_and_stays_below(text: str) -> None:
    try:
        names = parse_key(text)
    except UsageError:
        return
    assert show(names) == text
    path = b"/".join(names)
    assert os.path.normpath(b"/folder/" + path) == b"/folder/" + path
    assert len(path) <= limits.KEY_BYTES_MAX and max(map(len, names)) <= limits.NAME_BYTES_MAX


@given(TEXTS)
def test_the_beginning_of_every_key_is_a_prefix(text: str) -> None:
    try:
        names = parse_key(text)
    except UsageError:
        return
    for end in range(len(text) + 1):
        folder, beginning = parse_prefix(text[:end])
        assert folder == names[: len(folder)]
        assert b"/".join(names[len(folder) :]).startswith(beginning)


@given(PATHS, PATHS, PATHS.filter(bool))
def test_what_is_allowed_lies_below_the_reach(
    folder: tuple[bytes, ...], deeper: tuple[bytes, ...], names: tuple[bytes, ...]
) -> None:
    reach = folder + deeper
    try:
        path = below(folder, reach, names)
    except AccessError:
        assert names[: len(deeper)] != deeper or len(names) == len(deeper)
    else:
        assert path and reach + path == folder + names


@pytest.mark.parametrize(
    "text", [None, 7, b"bytes", ["a"], "", "/a", "a/", "a//b", ".", "a/..", "\0", "\ud800", "n" * 256]
)
def test_what_is_no_key(text: object) -> None:
    with pytest.raises(UsageError):
        parse_key(text)
