"""Bytes at the end of a file, as `>>` does it, and where the parts begin after that. Blocking, for a thread of the
agent.

The kernel's O_APPEND puts each write whole at the end, whoever else appends. Appends over the socket to one file take
turns until the list of parts is written, so the list never lacks one of them; what others append in between is a part
by itself.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from ciaosfs.base import limits
from ciaosfs.base.errors import UsageError
from ciaosfs.base.types import Buffer
from ciaosfs.codec.parts import check_count, encode_parts, parts_of
from ciaosfs.fs.xattrs import PARTS

_NAME = PARTS.decode()
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class Appended(NamedTuple):
    """Where the bytes begin, and how long the file was after them."""

    offset: int
    size: int


def append(descriptor: int, data: Buffer, sizes: Sequence[int], *, goes_on: bool, sync: bool) -> Appended:
    """Write `data` at the end as new parts of `sizes`; `goes_on`: the first of them is the rest of the last part.

    The daemon has the bytes when it returns, and the drives when `sync`. UsageError, before anything is written, when
    there would be too many parts; OSError.
    """
    size = os.fstat(descriptor).st_size
    check_count(len(parts_of(_value(descriptor), size)) + len(sizes))
    appended = _write(descriptor, data) if data else Appended(size, size)
    if data:
        # Before the list of parts, so that a commit has none that is longer than the file.
        _hand_over(descriptor, appended.offset, len(data))
    value = _value(descriptor)
    # Others may have appended since the look above: what lies between is a part of its own.
    parts = parts_of(value, appended.offset)
    new = [*sizes]
    if goes_on and new:
        parts[-1] += new.pop(0)
    parts += new
    if len(parts) > 1 or value is not None:
        with suppress(
            UsageError
        ):  # one too many by what came in between: these bytes are one part, as after `>>`
            os.setxattr(descriptor, _NAME, encode_parts(parts))
    if sync:
        os.fsync(descriptor)
    return appended


def _write(descriptor: int, data: Buffer) -> Appended:
    rest = memoryview(data)
    while True:
        rest = rest[os.write(descriptor, rest) :]
        if not rest:
            break
    end = os.lseek(descriptor, 0, os.SEEK_CUR)
    return Appended(end - len(data), end)


def _hand_over(descriptor: int, offset: int, length: int) -> None:
    """Wait until the kernel's cache has handed the range to the daemon, which may have no room for it."""
    flags = _WAIT_BEFORE | _WRITE | _WAIT_AFTER
    while _libc.sync_file_range(descriptor, offset, length, flags) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


def _value(descriptor: int) -> bytes | None:
    try:
        return os.getxattr(descriptor, _NAME)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return None


assert limits.CONTROL_BODY_BYTES_MAX <= limits.MIB  # one write(2), which O_APPEND keeps whole
