"""Keys: names between slashes, below the folder where they begin. Pure.

Text in messages, bytes on the mount: UTF-8, and what is none is a surrogate escape, as Python's own file names are.
"""

from __future__ import annotations

from typing import TypeAlias

from ciaosfs.base import limits
from ciaosfs.base.errors import AccessError, UsageError

Names: TypeAlias = tuple[bytes, ...]
"""The names of a path, outermost first."""


def parse_key(text: object) -> Names:
    """The names of a key. UsageError, with a sentence, for what is none."""
    names = _names(text, "key")
    _check(names, text)
    return names


def parse_prefix(text: object) -> tuple[Names, bytes]:
    """What listed keys begin with: whole names, and the beginning of a further one (b"": any). UsageError as
    `parse_key`."""
    if text == "":
        return (), b""
    *names, beginning = _names(text, "prefix")
    _check(tuple(names), text)
    if b"\0" in beginning:
        raise UsageError(f"The prefix {text!r} has a zero byte in it.")
    return tuple(names), beginning


def show(names: Names) -> str:
    """The text of a key."""
    return b"/".join(names).decode(errors="surrogateescape")


def below(folder: Names, reach: Names, names: Names) -> Names:
    """The names on the way from `reach` to the key `names` of `folder`; both are on the way from the root.

    AccessError unless the key lies below `reach`: what is elsewhere is not even looked for.
    """
    path = folder + names
    if path[: len(reach)] != reach or len(path) == len(reach):
        inside = show(reach[len(folder) :])
        raise AccessError(
            f"The token is good for keys below {inside!r} alone, not for {show(names)!r}."
            if inside
            else f"The token is not good for {show(names)!r}."
        )
    return path[len(reach) :]


def _names(text: object, what: str) -> Names:
    if not isinstance(text, str):
        raise UsageError(f"The {what} is missing, or {text!r} is none: give text.")
    try:
        content = text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise UsageError(f"The {what} {text!r} cannot be written as UTF-8.") from None
    if len(content) > limits.KEY_BYTES_MAX:
        raise UsageError(f"A {what} has at most {limits.KEY_BYTES_MAX:,} bytes, not {len(content):,}.")
    return tuple(content.split(b"/"))


def _check(names: Names, text: object) -> None:
    for name in names:
        if name in (b"", b".", b"..") or b"\0" in name:
            raise UsageError(
                f"{text!r} is no key: give names between slashes that are not empty, '.' or '..', like 'runs/7/model.pt'."
            )
        if len(name) > limits.NAME_BYTES_MAX:
            raise UsageError(f"A name in {text!r} is longer than {limits.NAME_BYTES_MAX} bytes.")
