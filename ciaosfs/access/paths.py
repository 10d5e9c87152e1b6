"""Folders and prefixes: the names on the way from the root, as people give them and as they are stored. Pure.

There is nothing in them that could lead elsewhere: no empty name, no "." and "..", no NUL. Text is UTF-8; bytes that
are none travel as surrogates, as with file names everywhere in Python.
"""

from __future__ import annotations

import os
from typing import TypeAlias

from ciaosfs.base import limits
from ciaosfs.base.errors import UsageError

Names: TypeAlias = tuple[bytes, ...]
"""The names on the way from the root to a directory; () is the root."""


def parse_folder(text: str) -> Names:
    """A user's folder, from the root: "/", "/ann", "/lab/ann". UsageError for what is none."""
    if not text.startswith("/"):
        raise UsageError(f"The folder {text!r} must be a path from the root of the store, like '/ann'.")
    return _names(text[1:], text, ())


def parse_prefix(text: str, folder: Names) -> Names:
    """A prefix, relative to the user's `folder` as keys are, from the root; "" is the folder. UsageError."""
    if text.startswith("/"):
        raise UsageError(
            f"The prefix {text!r} must be relative to the folder of the user: leave out the first '/'."
        )
    return _names(text, text, folder)


def to_stored(names: Names) -> bytes:
    """As the metadata keeps it: "/" or "/a/b"."""
    return b"/" + b"/".join(names)


def from_stored(path: bytes) -> Names:
    """The reverse of `to_stored`."""
    return tuple(path[1:].split(b"/")) if path != b"/" else ()


def to_text(names: Names) -> str:
    """For people and messages: "/" or "/a/b"."""
    return os.fsdecode(to_stored(names))


def is_inside(names: Names, prefix: Names) -> bool:
    """Whether a directory is the one at `prefix`, or below it."""
    return names[: len(prefix)] == prefix


def _names(relative: str, given: str, folder: Names) -> Names:
    """The names below `folder`; one slash at the end, as a shell completes it, means nothing."""
    try:
        stored = os.fsencode(relative.removesuffix("/"))
    except UnicodeEncodeError:
        raise UsageError(f"{given!r} has characters that cannot be in a path.") from None
    names = tuple(stored.split(b"/")) if stored else ()
    for name in names:
        if not name or name in (b".", b"..") or b"\0" in name:
            raise UsageError(f"{given!r} must be made of plain names: no empty one, no '.' and '..'.")
        if len(name) > limits.NAME_BYTES_MAX:
            raise UsageError(f"{given!r} has a name longer than {limits.NAME_BYTES_MAX} bytes.")
    whole = (*folder, *names)
    if len(to_stored(whole)) > limits.ACCESS_PATH_BYTES_MAX:
        raise UsageError(
            f"{given!r} is too long: a path here has up to {limits.ACCESS_PATH_BYTES_MAX} bytes."
        )
    return whole
