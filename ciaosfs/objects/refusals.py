"""From the errno of a system call to a sentence that names the key, and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ciaosfs.base.errors import AccessError, CiaosError, DaemonError, FsError

_SENTENCES: Final = {
    errno.ENOENT: "There is no object {key!r}.",
    errno.EEXIST: "{key!r} exists: update it, or give another key.",
    errno.EISDIR: "{key!r} is a directory, no object: give a key below it.",
    errno.ENOTDIR: "A name on the way to {key!r} is that of a file: give another key.",
    errno.EINVAL: "{key!r} is no regular file: only those are objects.",
    errno.ELOOP: "{key!r} is a symbolic link, which is not replaced: use the key it leads to, or delete it.",
    errno.EACCES: "File permissions do not allow this with {key!r}.",
    errno.EPERM: "File permissions do not allow this with {key!r}: it belongs to somebody else.",
    errno.EROFS: "The store is mounted to be read only: {key!r} was not changed.",
    errno.ENAMETOOLONG: "A name in {key!r} is too long.",
    errno.ENOSPC: "The drives are full: {key!r} was not written. Delete something or add a drive.",
    errno.EFBIG: "{key!r} would be larger than a file may be.",
    errno.ESTALE: "{key!r} is being changed by others again and again: try again.",
    errno.EMFILE: "The daemon has too many files open: try again in a moment.",
    errno.ENFILE: "The machine has too many files open: try again in a moment.",
}
_GONE: Final = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV, errno.ESHUTDOWN)


@contextmanager
def about(key: str) -> Iterator[None]:
    """What is raised in this context about the file of `key` comes out as a CiaosError that says so."""
    try:
        yield
    except FsError as error:
        if error.message != errno.errorcode.get(error.errno):
            raise  # it has a sentence
        raise refusal(error.errno, key) from error
    except CiaosError:
        raise
    except OSError as error:
        raise refusal(error.errno or errno.EIO, key) from error


def refusal(code: int, key: str) -> CiaosError:
    """The error for `code`."""
    if code == errno.EXDEV:
        return AccessError(
            f"The way to {key!r} leads out of where keys may go (by a link, or into another mount)."
        )
    if code in _GONE:
        return DaemonError(f"The store is being unmounted: nothing was done with {key!r}.")
    sentence = _SENTENCES.get(code)
    if sentence is None:
        return FsError(code, f"{key!r}: {errno.errorcode.get(code, code)}.")
    return FsError(code, sentence.format(key=key))
