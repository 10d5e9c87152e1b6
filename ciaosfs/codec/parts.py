"""Where the parts of an object begin: the value of the xattr `user.ciaos.parts`. Pure. Byte table in FORMAT.md.

An object is a list of blobs, and a file that is their concatenation. The value keeps the sizes as runs, because most
objects have parts of one size. It never says more than the file: what plain file I/O has appended is one further part,
and where the file is shorter than its parts, or the value is none of ours, the whole file is one part.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from ciaosfs.base import limits
from ciaosfs.base.errors import UsageError

VERSION = 1


def encode_parts(sizes: Sequence[int]) -> bytes:
    """The value for parts of these sizes. UsageError for none, for too many, or when it would be too long."""
    check_count(len(sizes))
    value = bytearray((VERSION,))
    for size, run in groupby(sizes):
        if size < 0:
            raise UsageError(f"{size} is no size of a part.")
        _put(value, size)
        _put(value, sum(1 for _ in run))
    if sum(sizes) > limits.FILE_BYTES_MAX:
        raise UsageError("The parts together are larger than a file may be.")
    if len(value) > limits.XATTR_VALUE_BYTES_MAX:
        raise UsageError(
            "The sizes of the parts are too many and too different to be kept: join some of them."
        )
    return bytes(value)


def check_count(count: int) -> None:
    """UsageError unless an object may have so many parts."""
    if not 1 <= count <= limits.PARTS_MAX:
        raise UsageError(
            f"An object has 1 to {limits.PARTS_MAX:,} parts, not {count:,}: join some of them."
            if count
            else "An object has at least one part: give an empty one for no bytes."
        )


def decode_parts(value: bytes) -> list[int]:
    """The sizes. UsageError when the value is none that `encode_parts` could have made of them."""
    if not value or value[0] != VERSION:
        raise UsageError("This is no list of parts of a version that is known here.")
    sizes: list[int] = []
    at = 1
    while at < len(value):
        size, at = _take(value, at)
        count, at = _take(value, at)
        check_count(len(sizes) + count)
        sizes += [size] * count
    if encode_parts(sizes) != value:
        raise UsageError("The list of parts is not written the one way there is.")
    return sizes


def parts_of(value: bytes | None, size: int) -> list[int]:
    """The sizes of the parts of a file of `size` bytes with this value of the xattr, None without one.

    Their sum is `size`, always.
    """
    if value is None:
        return [size]
    try:
        sizes = decode_parts(value)
    except UsageError:
        return [size]
    rest = size - sum(sizes)
    if rest < 0:
        return [size]
    return [*sizes, rest] if rest else sizes


def _put(value: bytearray, number: int) -> None:
    while number > 0x7F:
        value.append(number & 0x7F | 0x80)
        number >>= 7
    value.append(number)


def _take(value: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends. It has at most nine bytes: 63 bits."""
    number = 0
    for place, byte in enumerate(value[at : at + 9]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    raise UsageError("The list of parts ends too early.")
