"""Keys, blobs and metadata as a caller gives them, checked before anything is sent. Pure.

A key is a path below the user's folder: names between slashes, "runs/7/model.pt". It is text, or bytes where a name is no
UTF-8; bytes travel as text with surrogate escapes, as Python's own file names do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from ciaosfs.base import limits

Key: TypeAlias = str | bytes
RESERVED = "ciaos."
"""How the names of a file's own facts and policies begin."""
METADATA_NAME_BYTES_MAX = limits.XATTR_NAME_BYTES_MAX - len("user.")
_EXAMPLE = "give names between slashes, like 'runs/7/model.pt'"


def check_key(key: Key) -> str:
    """The key as text. Raises ValueError when it cannot be one, TypeError when it is neither text nor bytes."""
    text = _text(key)
    if not text:
        raise ValueError(f"The key is empty: {_EXAMPLE}.")
    if text.startswith("/"):
        raise ValueError(
            f"The key {text!r} begins with a slash: keys begin in the user's folder without one."
        )
    _check_names(text, text.split("/"))
    return text


def check_prefix(prefix: Key) -> str:
    """What listed keys begin with, as text: nothing, names, or the beginning of a name. Raises as `check_key`."""
    text = _text(prefix)
    if text.startswith("/"):
        raise ValueError(
            f"The prefix {text!r} begins with a slash: keys begin in the user's folder without one."
        )
    *names, _ = text.split("/")
    _check_names(text, names)
    return text


def blobs(data_list: Iterable[Any]) -> list[memoryview]:
    """The objects as flat views of their bytes; none is copied, so they must not change until the call has returned.

    Raises ValueError for an empty list and for more parts than an object may have, TypeError for what is no list of
    bytes-like objects; one bytes object is none: a list of its bytes as numbers would be meant by nobody.
    """
    if isinstance(data_list, (str, bytes, bytearray, memoryview)):
        raise TypeError("The data must be a list of bytes-like objects: give [data] for a single one.")
    views = [_view(number, item) for number, item in enumerate(data_list)]
    if not views:
        raise ValueError(
            "The list of data is empty: give at least one bytes-like object, b'' for an empty one."
        )
    if len(views) > limits.PARTS_MAX:
        raise ValueError(
            f"The list has {len(views):,} parts and an object may have {limits.PARTS_MAX:,}: join some of them."
        )
    return views


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """A copy of what a user wants to keep with an object. Raises ValueError for names that cannot be, TypeError for what
    is not text."""
    checked = {}
    for name, value in (metadata or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("Metadata are names and values that are both text.")
        if (
            not name
            or "\0" in name
            or name.startswith(RESERVED)
            or len(name.encode()) > METADATA_NAME_BYTES_MAX
        ):
            raise ValueError(
                f"{name!r} cannot name metadata: give 1 to {METADATA_NAME_BYTES_MAX} bytes that do not begin "
                f"with {RESERVED!r}."
            )
        checked[name] = value
    return checked


def _text(key: Key) -> str:
    if isinstance(key, bytes):
        return key.decode(errors="surrogateescape")
    if not isinstance(key, str):
        raise TypeError(f"A key is text or bytes, not {type(key).__name__}.")
    return key


def _check_names(text: str, names: Iterable[str]) -> None:
    if "\0" in text:
        raise ValueError(f"The key {text!r} has a zero byte in it: {_EXAMPLE}.")
    try:
        if len(text.encode(errors="surrogateescape")) > limits.KEY_BYTES_MAX:
            raise ValueError(
                f"The key {text[:40]!r}... is longer than {limits.KEY_BYTES_MAX:,} bytes: shorten it."
            )
        for name in names:
            if name in ("", ".", ".."):
                raise ValueError(f"The key {text!r} has a name {name!r} in it, which is none: {_EXAMPLE}.")
            if len(name.encode(errors="surrogateescape")) > limits.NAME_BYTES_MAX:
                raise ValueError(
                    f"The key {text[:40]!r}... has a name longer than {limits.NAME_BYTES_MAX} bytes: shorten it."
                )
    except UnicodeEncodeError:
        raise ValueError(f"The key {text!r} cannot be written as UTF-8: {_EXAMPLE}.") from None


def _view(number: int, item: Any) -> memoryview:
    try:
        view = memoryview(item)
    except TypeError:
        raise TypeError(
            f"Item {number} of the data is of type {type(item).__name__}: give bytes-like objects, text as text.encode()."
        ) from None
    if not view.nbytes:
        return memoryview(b"")
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
