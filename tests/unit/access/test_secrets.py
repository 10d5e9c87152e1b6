"""The text of a secret is read as it was written, and nothing else is taken for one."""

from __future__ import annotations

import ast
import inspect
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciaosfs.access import secrets
from ciaosfs.access.secrets import claim_of, hash_of, is_true, mint, to_text


@given(st.integers(1, 10**18 - 1), st.binary(min_size=32, max_size=32))
def test_what_is_written_is_read(token_id: int, content: bytes) -> None:
    text = to_text(token_id, content)
    assert len(text) <= secrets.TEXT_CHARACTERS_MAX
    assert text.startswith(f"ciaosfs_{token_id}_") and text.isascii() and text.isprintable()
    assert claim_of(text) == (token_id, hash_of(content))


def test_every_secret_is_another_one() -> None:
    assert len({mint() for _ in range(100)}) == 100 and len(mint()) == 32


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: text.upper(),
        lambda text: text.replace("ciaosfs_7_", "ciaosfs_07_"),
        lambda text: text.replace("ciaosfs_7_", "ciaosfs_0_"),
        lambda text: text.replace("ciaosfs_7_", f"ciaosfs_{10**30}_"),
        lambda text: text.replace("ciaosfs_7_", "ciaosfs_٧_"),
        lambda text: text.replace("ciaosfs_7_", "ciaosfs_-7_"),
        lambda text: "",
    ],
)
def test_a_spoiled_text_is_no_token(spoil: object) -> None:
    assert callable(spoil)
    text = to_text(7, bytes(32))
    claim = claim_of(spoil(text))
    assert claim.token_id == 0 and not is_true(claim, hash_of(bytes(32)))


def test_the_spare_bits_of_the_last_character_are_zero() -> None:
    """Else four texts would be good for one secret."""
    text = to_text(7, bytes(32))
    good = [
        last for last in string.ascii_letters + string.digits + "-_" if claim_of(text[:-1] + last).token_id
    ]
    assert len(good) == 16  # of 64: the last character carries four bits


def test_only_the_secret_of_the_token_is_true() -> None:
    claim = claim_of(to_text(7, bytes(32)))
    assert is_true(claim, hash_of(bytes(32)))
    assert not is_true(claim, hash_of(b"x" * 32))
    assert not is_true(claim, None)


def test_comparing_takes_one_way_whatever_is_there() -> None:
    """By construction: one `compare_digest` that is always called, before anything is decided, on hashes of one length."""
    [function] = ast.parse(inspect.getsource(is_true)).body
    assert isinstance(function, ast.FunctionDef)
    first = function.body[1]  # after the docstring
    assert isinstance(first, ast.Assign) and ast.unparse(first.value).startswith("hmac.compare_digest(")
    assert not [node for node in ast.walk(function) if isinstance(node, ast.If)]
    assert len(claim_of("rubbish").hash) == len(claim_of(to_text(7, bytes(32))).hash) == secrets.HASH_BYTES
