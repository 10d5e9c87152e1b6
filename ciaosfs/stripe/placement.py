"""Which drives get the shards of a stripe, and how much payload fits on the drives altogether. Pure.

A *room* is what one drive can take at this moment. Drives that share a file system share its free bytes: each
counts with an equal part of them. With `x` the most bytes any one drive gets, drives with rooms `r` hold
stripes of `width` shards as long as `sum(min(r, x)) >= width * x`; the payload is then `data_count * x`.

Where a stripe may have at most `limit` shards in one failure domain (`domains.Spread`), a domain counts with at most
`limit * x` of what its drives give. This is exact: a stripe that takes from each domain its part of the whole, rounded
down or up, and there the drives with most room, leaves drives that hold one stripe less.

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
from ciaosfs.stripe.domains import NO_SPREAD, Domain, Level, Spread

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


class Group(NamedTuple):
    """Drives of one domain: what each can take, and how many shards of a stripe the domain may have."""

    rooms: Sequence[int]
    limit: int


def grouped_share(groups: Sequence[Group], width: int) -> int:
    """As `even_share`, where each group gives at most `limit * x`.

    What the groups give is concave in `x` and passes through 0, so Newton's method comes down from above to the
    answer, in as many steps as there are bends at most.
    """
    assert width > 0
    share = sum(sum(group.rooms) for group in groups) // width
    while share > 0:
        given = slope = 0
        for rooms, limit in groups:
            together = sum(min(room, share) for room in rooms)
            if together < limit * share:
                given += together
                slope += sum(room >= share for room in rooms)
            else:
                given += limit * share
                slope += limit
        if given >= width * share:
            break
        share = max(0, (given - slope * share) // (width - slope))
    return share


def usable_space(
    rooms: Sequence[DriveRoom], data_count: int, parity_count: int, spread: Spread = NO_SPREAD
) -> Space:
    """Space in payload bytes over the present drives; zeros when too few of them are there to write a stripe.

    With drives away, stripes are written narrower, on those that are there.
    """
    if len(rooms) < data_count:
        return Space(0, 0, 0)
    width = min(data_count + parity_count, len(rooms))
    total = _share(rooms, [room.total for room in rooms], width, spread)
    free = _share(rooms, [room.free + room.held for room in rooms], width, spread)
    rounding = limits.STRIPE_PAYLOAD_BYTES_MAX // data_count if len(rooms) > width else 0
    above = [max(0, room_above(room, reserve_bytes(room.total)) - rounding) for room in rooms]
    share = _share(rooms, above, width, spread)
    waiting = limits.DIRTY_BYTES_MAX // data_count
    share -= min(share, waiting) // WORST_OVERHEAD_DIVISOR + share // FULL_OVERHEAD_DIVISOR
    return Space(data_count * total, data_count * free, data_count * share)


def _share(rooms: Sequence[DriveRoom], sizes: Sequence[int], width: int, spread: Spread) -> int:
    if spread.level is Level.DRIVE:
        return even_share(sizes, width)
    by_domain: dict[Domain, list[int]] = {}
    for room, size in zip(rooms, sizes, strict=True):
        by_domain.setdefault(spread.domains[room.number], []).append(size)
    return grouped_share([Group(sizes, spread.limit) for sizes in by_domain.values()], width)


class _Candidate(NamedTuple):
    """A drive that could take a needle; sorts by what is wanted first."""

    left_negated: int
    placed: int
    number: int


def choose_drives(
    rooms: Sequence[DriveRoom],
    count: int,
    needle_bytes: int,
    exclude: Collection[int] = (),
    spread: Spread = NO_SPREAD,
    holders: Collection[int] = (),
) -> list[int]:
    """Up to `count` distinct drives that can take `needle_bytes` each, those with the most room first.

    `exclude` names drives that are not to be chosen; `holders` those that have a shard of the stripe already. Fewer
    than `count` come back when the others are too full; the caller decides whether that will do. The rule of `spread` is
    kept for a new stripe; a shard that joins others goes to a crowded domain rather than nowhere.
    """
    fitting = []
    for room in rooms:
        left = room_above(room, reserve_bytes(room.total) // 2)
        if room.number not in exclude and left >= needle_bytes:
            fitting.append(_Candidate(-left, room.placed, room.number))
    fitting.sort()
    if spread.level is Level.DRIVE:
        return [candidate.number for candidate in fitting[:count]]
    chosen = _choose_spread(fitting, count, needle_bytes, spread, spread.held(holders))
    if holders and len(chosen) < count:
        rest = [candidate for candidate in fitting if candidate not in chosen]
        chosen += rest[: count - len(chosen)]
    return [candidate.number for candidate in sorted(chosen)]


def _choose_spread(
    fitting: Sequence[_Candidate], count: int, needle_bytes: int, spread: Spread, held: Counter[Domain]
) -> list[_Candidate]:
    """From each domain its part of `count`, rounded down or up, so that as much as possible fits afterwards."""
    by_domain: dict[Domain, list[_Candidate]] = {}
    for candidate in fitting:
        by_domain.setdefault(spread.domains[candidate.number], []).append(candidate)
    limit_of = {domain: max(0, spread.limit - held[domain]) for domain in by_domain}
    rooms_of = {
        domain: [-candidate.left_negated // needle_bytes for candidate in candidates]
        for domain, candidates in by_domain.items()
    }
    share = grouped_share([Group(rooms_of[domain], limit_of[domain]) for domain in by_domain], count)
    if share == 0:
        # Not even one: as many as may be.
        return sorted(one for domain, group in by_domain.items() for one in group[: limit_of[domain]])[:count]
    parts: dict[Domain, int] = {}
    rests: list[tuple[int, int, int, Domain]] = []
    for number, (domain, candidates) in enumerate(by_domain.items()):
        given = min(sum(min(room, share) for room in rooms_of[domain]), limit_of[domain] * share)
        parts[domain], rest = divmod(given, share)
        rests.append((rest, -sum(one.left_negated for one in candidates), -number, domain))
    rests.sort(key=lambda each: each[:3])
    short = count - sum(parts.values())
    while short > 0:
        parts[rests.pop()[-1]] += 1
        short -= 1
    for _, _, _, domain in rests if short < 0 else ():
        # More than enough with only a few stripes to go: any of them may wait.
        less = min(-short, parts[domain])
        parts[domain] -= less
        short += less
    return [one for domain, candidates in by_domain.items() for one in candidates[: parts[domain]]]
