"""From the errors of ciaosfs to those a Python program expects. Pure.

A missing key is a KeyError with the key in it, an existing one a FileExistsError, what the token does not allow a
PermissionError, and every other refusal of a file operation the OSError of its errno. What is wrong with the daemon,
the store or its data stays a CiaosError. The error of ciaosfs is the cause of the one that is raised.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ciaosfs.base.errors import AccessError, CiaosError, FsError, NoSpaceError, UsageError


@contextmanager
def as_python(key: str, new_key: str | None = None) -> Iterator[None]:
    """What is raised in this context about `key` comes out as Python's own; `new_key` is what it is to be renamed to."""
    try:
        yield
    except CiaosError as error:
        is_missing = isinstance(error, FsError) and error.errno == errno.ENOENT
        translated = python_error(error, key if is_missing or new_key is None else new_key)
        if translated is error:
            raise
        raise translated from error


def python_error(error: CiaosError, key: str) -> Exception:
    """What to raise instead of `error`; the error itself when Python has no word for it."""
    if isinstance(error, AccessError):
        return PermissionError(error.errno, error.message)
    if isinstance(error, FsError) and error.errno == errno.ENOENT:
        return KeyError(key)
    if isinstance(error, UsageError):
        return ValueError(error.message)
    if isinstance(error, (FsError, NoSpaceError)):
        return OSError(error.errno, error.message.rstrip("."), key)
    return error
