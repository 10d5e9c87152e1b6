"""Keys, prefixes, blobs and metadata are checked before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ciaosfs.base import limits
from ciaosfs.client.keys import blobs, check_key, check_metadata, check_prefix


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("a", "a"),
        ("runs/7/model.pt", "runs/7/model.pt"),
        ("...", "..."),
        (" ?#%\\\n", " ?#%\\\n"),
        ("ä/日本", "ä/日本"),
        (b"a/b", "a/b"),
        (b"\xff/x", "\udcff/x"),
        ("n" * limits.NAME_BYTES_MAX, "n" * limits.NAME_BYTES_MAX),
        ("/".join(["n" * 127] * 32), "/".join(["n" * 127] * 32)),
    ],
)
def test_a_key_is_names_between_slashes(given: str | bytes, text: str) -> None:
    assert check_key(given) == text
    assert check_prefix(given) == text


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ("", "empty"),
        (b"", "empty"),
        ("/a", "begins with a slash"),
        ("a/", "''"),
        ("a//b", "''"),
        ("..", "'..'"),
        ("a/../b", "'..'"),
        ("./a", "'.'"),
        ("a\0b", "zero byte"),
        ("ä" * 128, "longer than 255"),
        ("/".join(["n" * 127] * 33), "longer than 4,096"),
        ("\ud800", "UTF-8"),
    ],
)
def test_what_is_no_key_is_said_in_a_sentence(given: str | bytes, word: str) -> None:
    with pytest.raises(ValueError, match="key") as caught:
        check_key(given)
    assert type(caught.value) is ValueError
    assert word in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("given", [None, 7, ["a"]])
def test_a_key_of_another_type(given: Any) -> None:
    with pytest.raises(TypeError, match="text or bytes"):
        check_key(given)


@pytest.mark.parametrize("given", ["", "a/", "a/b", "a/.", "a/.."])
def test_a_prefix_may_end_in_the_middle_of_a_name(given: str) -> None:
    assert check_prefix(given) == given


@pytest.mark.parametrize("given", ["/a", "a//b", "../b", "a\0b"])
def test_what_is_no_prefix(given: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        check_prefix(given)


def test_blobs_are_views_of_whatever_has_bytes() -> None:
    numbers = np.arange(6, dtype=np.int32).reshape(2, 3)
    given = [b"a", bytearray(b"bc"), memoryview(b"d"), numbers, numbers[:, ::2], np.empty((0, 3)), b""]
    assert [view.tobytes() for view in blobs(iter(given))] == [
        *(b"a", b"bc", b"d", numbers.tobytes(), numbers[:, ::2].tobytes(), b"", b"")
    ]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ([], ValueError, "at least one"),
        ([b""] * (limits.PARTS_MAX + 1), ValueError, "join some"),
        (b"abc", TypeError, r"give \[data\]"),
        (bytearray(b"abc"), TypeError, r"give \[data\]"),
        ("abc", TypeError, r"give \[data\]"),
        ([b"a", "b"], TypeError, "Item 1 .* str"),
        ([1], TypeError, "Item 0 .* int"),
        (7, TypeError, "iterable"),
    ],
)
def test_what_is_no_list_of_blobs(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        blobs(given)


def test_metadata_are_names_and_values() -> None:
    assert check_metadata(None) == {}
    assert check_metadata({"epoch": "7", "ä": ""}) == {"epoch": "7", "ä": ""}


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"": "x"}, ValueError),
        ({"ciaos.parts": "x"}, ValueError),
        ({"n" * 251: "x"}, ValueError),
        ({"a\0": "x"}, ValueError),
        ({"a": 7}, TypeError),
        ({b"a": "x"}, TypeError),
    ],
)
def test_what_is_no_metadata(given: Any, error: type[Exception]) -> None:
    call: Callable[[Any], object] = check_metadata
    with pytest.raises(error):
        call(given)
