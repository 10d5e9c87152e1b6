"""System calls that resolve names below a directory and never leave it, whatever links and renames there are.

openat2(2) with RESOLVE_BENEATH lets the kernel refuse (EXDEV) every absolute link, and every ".." that would pass the
directory it began in, at the moment of each step; no other mount is entered. Raises OSError, as `os` does.
"""

from __future__ import annotations

import ctypes
import errno
import os

_OPENAT2, _FACCESSAT2 = 437, 439
"""The same on every architecture."""
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_AT_EACCESS, _AT_EMPTY_PATH = 0x200, 0x1000
_RENAME_NOREPLACE = 1
_TRIES_MAX = 64
"""openat2 answers EAGAIN when a rename was made while it went up by ".."."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(directory: int, path: bytes, flags: int, *, follow: bool = True) -> int:
    """A descriptor of `path` below the descriptor `directory`; `follow` symbolic links that stay below it, or refuse
    all."""
    resolve = _BENEATH | _NO_MAGICLINKS | _NO_XDEV | (0 if follow else _NO_SYMLINKS)
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    for _ in range(_TRIES_MAX):
        found: int = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_long(directory),
            ctypes.c_char_p(path or b"."),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if found >= 0:
            return found
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    raise _last(path)


def check_access(descriptor: int, wanted: int) -> None:
    """Raise EACCES, or EROFS, unless this thread, by its ids for file systems, may do what `wanted` (os.W_OK...)
    says."""
    flags = ctypes.c_long(_AT_EACCESS | _AT_EMPTY_PATH)
    arguments = ctypes.c_long(descriptor), ctypes.c_char_p(b""), ctypes.c_long(wanted), flags
    if _libc.syscall(ctypes.c_long(_FACCESSAT2), *arguments) != 0:
        raise _last(b"")


def rename_new(old_directory: int, old: bytes, new_directory: int, new: bytes) -> None:
    """Move a name to one that nothing has yet: EEXIST otherwise."""
    if _libc.renameat2(old_directory, old, new_directory, new, _RENAME_NOREPLACE) != 0:
        raise _last(new)


def _last(path: bytes) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), path)
