"""Cutting and joining extents. Pure: values in, values out."""

from __future__ import annotations

from ciaosfs.base.types import Codec, Extent


def cut(extent: Extent, start: int, end: int) -> Extent | None:
    """The part of `extent` that covers file bytes `[start, end)`; None when there is none.

    A RAW extent is cut where it lies in the stripe. A compressed one still needs its whole block to be read:
    only the range that is used of the decoded bytes changes.
    """
    offset, length, stripe_id, stripe_offset, stored_length, codec, skip = extent
    low = max(offset, start)
    high = min(offset + length, end)
    if low >= high:
        return None
    if low == offset and high == offset + length:
        return extent
    shift = low - offset
    if codec == Codec.RAW:
        return Extent(low, high - low, stripe_id, stripe_offset + shift, high - low, codec, 0)
    return Extent(low, high - low, stripe_id, stripe_offset, stored_length, codec, skip + shift)


def join(first: Extent, second: Extent) -> Extent | None:
    """One extent for both, when `second` continues `first` in the file and in what is stored; else None."""
    if (
        first.offset + first.length != second.offset
        or first.stripe_id != second.stripe_id
        or first.codec != second.codec
    ):
        return None
    length = first.length + second.length
    if first.codec == Codec.RAW:
        if first.stripe_offset + first.stored_length != second.stripe_offset:
            return None
        return first._replace(length=length, stored_length=length)
    if (
        first.stripe_offset != second.stripe_offset
        or first.stored_length != second.stored_length
        or first.skip + first.length != second.skip
    ):
        return None
    return first._replace(length=length)
