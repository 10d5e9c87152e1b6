"""Which drives get the shards of a stripe, and how much payload fits on the drives altogether. Pure.

A *room* is what one drive can take at this moment. Drives that share a file system share its free bytes: each
counts with an equal part of them. With `x` the most bytes any one drive gets, drives with rooms `r` hold
stripes of `width` shards as long as `sum(min(r, x)) >= width * x`; the payload is then `data_count * x`.

Invariant: what `usable_space` calls available can be placed by `choose_drives`, together with its needle
heads: all of it in full stripes, or as much as may wait in memory in stripes of the worst size. For that it
leaves out what heads and rounding take, half of the reserve, and a shard per drive where drives are chosen
among more than needed; `choose_drives` goes down to the other half.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from ciaosfs.base import limits
from ciaosfs.base.types import Space

FULL_OVERHEAD_DIVISOR = 200
"""A shard of 1 MiB has a head of 4 KiB, one part in 256."""
WORST_OVERHEAD_DIVISOR = 8
"""A shard just above NEEDLE_LARGE_BYTES is rounded up to a page and has a page of head: one part in 8."""


class DriveRoom(NamedTuple):
    """What one present drive has. All in bytes.

    `free` and `total` are of the file system `device` it lies on, `free` already without what is on its way
    there. `held` is preallocated log space that is not written yet: gone from `free`, and part of the
    reserve. `placed` counts what was sent to the drive in this session, to spread load over drives that are
    equally free.
    """

    number: int
    device: int
    free: int
    total: int
    held: int
    placed: int


def reserve_bytes(total: int) -> int:
    """Held back on a drive of `total` bytes so that commits and deletes still fit when it is full."""
    return min(limits.LOG_RESERVE_BYTES, total // 16)


def split_shared(rooms: Sequence[DriveRoom]) -> list[DriveRoom]:
    """The same drives, each with its own part of a file system that several share: what the rest works on."""
    sharers = Counter(room.device for room in rooms)
    return [
        room._replace(free=room.free // sharers[room.device], total=room.total // sharers[room.device])
        for room in rooms
    ]


def room_above(room: DriveRoom, reserve: int) -> int:
    """Bytes a drive can take while `reserve` stays free or preallocated for the log."""
    return max(0, min(room.free, room.free + room.held - reserve))


def even_share(rooms: Sequence[int], width: int) -> int:
    """The largest `x` with `sum(min(room, x)) >= width * x`: what the fullest drive holds when all are full.

    For every `t`, the `t` smallest rooms and `len(rooms) - t` times `x` together must reach `width * x`; only
    those with more than `len(rooms) - width` drives say anything.
    """
    assert width > 0
    spare = len(rooms) - width
    if spare < 0:
        return 0
    share: int | None = None
    together = 0
    for count, room in enumerate(sorted(rooms), start=1):
        together += room
        if count > spare:
            bound = together // (count - spare)
            share = bound if share is None else min(share, bound)
    assert share is not None
    return share


def usable_space(rooms: Sequence[DriveRoom], data_count: int, parity_count: int) -> Space:
    """Space in payload bytes over the present drives; zeros when too few of them are there to write a stripe.

    With drives away, stripes are written narrower, on those that are there.
    """
    if len(rooms) < data_count:
        return Space(0, 0, 0)
    width = min(data_count + parity_count, len(rooms))
    total = even_share([room.total for room in rooms], width)
    free = even_share([room.free + room.held for room in rooms], width)
    rounding = limits.STRIPE_PAYLOAD_BYTES_MAX // data_count if len(rooms) > width else 0
    share = even_share(
        [max(0, room_above(room, reserve_bytes(room.total)) - rounding) for room in rooms], width
    )
    waiting = limits.DIRTY_BYTES_MAX // data_count
    share -= min(share, waiting) // WORST_OVERHEAD_DIVISOR + share // FULL_OVERHEAD_DIVISOR
    return Space(data_count * total, data_count * free, data_count * share)


def choose_drives(
    rooms: Sequence[DriveRoom], count: int, needle_bytes: int, exclude: Collection[int] = ()
) -> list[int]:
    """Up to `count` distinct drives that can take `needle_bytes` each, those with the most room first.

    `exclude` names drives that already have a shard of the stripe, or refused it. Fewer than `count` come
    back when the others are too full; the caller decides whether that will do.
    """
    fitting = []
    for room in rooms:
        left = room_above(room, reserve_bytes(room.total) // 2)
        if room.number not in exclude and left >= needle_bytes:
            fitting.append((-left, room.placed, room.number))
    fitting.sort()
    return [number for _, _, number in fitting[:count]]
