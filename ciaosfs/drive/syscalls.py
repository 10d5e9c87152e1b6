"""The system calls Python lacks: fallocate(2), to give pages back and to reserve room without growing, and syncfs(2)."""

from __future__ import annotations

import ctypes
import errno
import os

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate64 if hasattr(_libc, "fallocate64") else _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_fallocate.restype = ctypes.c_int


def sync_file_system(descriptor: int) -> None:
    """Write back and sync all of the file system that the descriptor is on. Raises OSError."""
    if _libc.syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def punch_hole(descriptor: int, offset: int, length: int) -> None:
    """Turn the range into a hole. Does nothing on a file system without holes. Raises OSError."""
    _call_fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, offset, length)


def reserve_room(descriptor: int, offset: int, length: int) -> None:
    """Reserve room for the range; the size stays. Does nothing where unsupported. Raises OSError."""
    _call_fallocate(descriptor, _KEEP_SIZE, offset, length)


def _call_fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    while _fallocate(descriptor, mode, offset, length) != 0:
        code = ctypes.get_errno()
        if code in (errno.EOPNOTSUPP, errno.ENOSYS):
            return
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
