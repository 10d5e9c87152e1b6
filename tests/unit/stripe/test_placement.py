"""Space: what is promised can be placed, whatever drives and stripes there are."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ciaosfs.base import limits
from ciaosfs.base.config import DriveLabels
from ciaosfs.base.limits import GIB, KIB, MIB
from ciaosfs.base.types import Space
from ciaosfs.codec.needle import needle_bytes_for
from ciaosfs.stripe.domains import NO_SPREAD, Level, Site, Spread, spread_of
from ciaosfs.stripe.layout import shard_bytes_for
from ciaosfs.stripe.placement import (
    DriveRoom,
    Group,
    choose_drives,
    even_share,
    grouped_share,
    reserve_bytes,
    room_above,
    split_shared,
    usable_space,
)


def room(
    number: int, free: int, total: int = 100 * GIB, device: int | None = None, held: int = 0
) -> DriveRoom:
    return DriveRoom(number, number if device is None else device, free, total, held, 0)


def brute_share(rooms: list[int], width: int) -> int:
    """The definition of even_share, tried out."""
    return max(x for x in range(sum(rooms) + 1) if sum(min(r, x) for r in rooms) >= width * x)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=7), st.integers(1, 7))
def test_even_share_is_the_largest_that_fits(rooms: list[int], width: int) -> None:
    if len(rooms) < width:
        assert even_share(rooms, width) == 0
    else:
        assert even_share(rooms, width) == brute_share(rooms, width)


def test_equal_drives_hold_the_data_shards_part_of_their_sum() -> None:
    space = usable_space([room(number, 10 * GIB) for number in range(6)], 4, 2)
    assert space.free == 40 * GIB
    assert 39 * GIB < space.available < 40 * GIB
    assert space.total == 400 * GIB


def test_the_smallest_of_just_enough_drives_is_the_limit() -> None:
    rooms = [room(number, 10 * GIB) for number in range(5)] + [room(5, 1 * GIB)]
    assert usable_space(rooms, 4, 2).free == 4 * GIB


def test_with_a_drive_to_spare_a_small_one_still_adds_its_room() -> None:
    rooms = [room(number, 10 * GIB) for number in range(6)] + [room(6, 1 * GIB)]
    assert usable_space(rooms, 4, 2).free == 4 * (61 * GIB // 6)


def test_drives_on_one_file_system_share_its_space() -> None:
    rooms = split_shared([room(number, 12 * GIB, 120 * GIB, device=1) for number in range(6)])
    space = usable_space(rooms, 4, 2)
    assert space.free == 8 * GIB
    assert space.total == 80 * GIB


def test_with_drives_away_stripes_are_narrower_and_hold_the_same_payload() -> None:
    assert usable_space([room(number, GIB) for number in range(5)], 4, 2).free == 4 * GIB
    assert usable_space([room(number, GIB) for number in range(4)], 4, 2).free == 4 * GIB
    assert usable_space([room(number, GIB) for number in range(3)], 4, 2) == Space(0, 0, 0)


def test_the_reserve_is_smaller_on_tiny_drives_and_held_log_room_counts_for_it() -> None:
    assert reserve_bytes(100 * GIB) == limits.LOG_RESERVE_BYTES
    assert reserve_bytes(16 * MIB) == MIB
    assert room_above(room(0, 20 * MIB), 16 * MIB) == 4 * MIB
    assert room_above(room(0, 20 * MIB, held=6 * MIB), 16 * MIB) == 10 * MIB
    assert room_above(room(0, 1 * MIB, held=40 * MIB), 16 * MIB) == 1 * MIB, "held room is no room for data"


def test_the_emptiest_drives_are_chosen_then_those_least_used() -> None:
    rooms = [room(0, GIB), room(1, 3 * GIB), room(2, 2 * GIB), room(3, 5 * MIB)]
    assert choose_drives(rooms, 3, MIB) == [1, 2, 0]
    assert choose_drives(rooms, 4, MIB) == [1, 2, 0], "drive 3 has nothing above half of its reserve"
    assert choose_drives(rooms, 3, MIB, {1}) == [2, 0]
    used = DriveRoom(4, 4, GIB, 100 * GIB, 0, placed=5)
    fresh = DriveRoom(5, 5, GIB, 100 * GIB, 0, placed=0)
    assert choose_drives([used, fresh], 1, MIB) == [5]


class Drives:
    """Drives that fill up as stripes are placed on them; each has one volume, which fills whole pages."""

    def __init__(self, rooms: list[DriveRoom], spread: Spread = NO_SPREAD) -> None:
        self.rooms = rooms
        self.spread = spread
        self.placed = {room.number: 0 for room in rooms}

    def free(self, device: int) -> int:
        on_it = [room for room in self.rooms if room.device == device]
        return on_it[0].free - sum(-(-self.placed[room.number] // 4096) * 4096 for room in on_it)

    def now(self) -> list[DriveRoom]:
        return split_shared(
            [
                DriveRoom(r.number, r.device, self.free(r.device), r.total, r.held, self.placed[r.number])
                for r in self.rooms
            ]
        )

    def place(self, length: int, data_count: int, width: int) -> bool:
        needle_bytes = needle_bytes_for(shard_bytes_for(length, data_count))
        chosen = choose_drives(self.now(), width, needle_bytes, (), self.spread)
        assert max(self.spread.held(chosen).values(), default=0) <= self.spread.limit
        for number in chosen:
            self.placed[number] += needle_bytes
        return len(chosen) == width and all(self.free(room.device) >= 0 for room in self.rooms)


Case = tuple[list[DriveRoom], int, int, Spread]


@st.composite
def drive_rooms(draw: st.DrawFn) -> Case:
    """Drives of all sizes, some sharing file systems, with or without labels that put some on a disk or a host."""
    data_count, parity_count = draw(st.sampled_from([(1, 1), (2, 1), (4, 2), (6, 3)]))
    count = data_count + parity_count + draw(st.integers(0, 3))
    devices = draw(st.integers(1, 4)) if draw(st.booleans()) else 100
    rooms = []
    sizes: dict[int, tuple[int, int]] = {}
    for number in range(count):
        device = number % devices
        if device not in sizes:
            total = draw(st.integers(8, 2000)) * MIB
            sizes[device] = (draw(st.integers(0, min(total, 300 * MIB) // KIB)) * KIB, total)
        free, total = sizes[device]
        held = draw(st.sampled_from([0, reserve_bytes(total // 6) // 2]))
        rooms.append(DriveRoom(number, device, free, total, held, 0))
    names = draw(st.sampled_from(["", "ab", "abc", "abcdef"]))
    label = st.sampled_from(["", *names])
    sites = [Site(room.number, DriveLabels(draw(label), draw(label)), room.device) for room in rooms]
    return rooms, data_count, parity_count, spread_of(sites, (), data_count + parity_count, parity_count)


SIZES = [limits.STRIPE_PAYLOAD_BYTES_MAX, MIB, 700_000, 4 * 65_537, 150_001]


@settings(max_examples=80, deadline=None)
@given(drive_rooms(), st.sampled_from(SIZES))
@example(([DriveRoom(n, n, 60 * MIB, 64 * MIB, 0, 0) for n in range(7)], 4, 2, NO_SPREAD), 4 * MIB)
@example(([DriveRoom(n, 0, 7 * MIB, 8 * MIB, 0, 0) for n in range(6)], 4, 2, NO_SPREAD), 4 * 65_537)
def test_what_is_available_can_be_placed(drives: Case, length: int) -> None:
    """The promise behind accepting writes: whatever is dirty in memory finds its place on the drives."""
    rooms, data_count, parity_count, spread = drives
    model = Drives(rooms, spread)
    space = usable_space(model.now(), data_count, parity_count, spread)
    left = min(space.available, limits.DIRTY_BYTES_MAX)
    while left > 0:
        part = min(left, length)
        assert model.place(part, data_count, data_count + parity_count), f"{left} bytes found no place"
        left -= part


@settings(max_examples=30, deadline=None)
@given(drive_rooms())
def test_all_of_what_is_available_can_be_filled_with_full_stripes(drives: Case) -> None:
    rooms, data_count, parity_count, spread = drives
    model = Drives(rooms, spread)
    while (available := usable_space(model.now(), data_count, parity_count, spread).available) > 0:
        part = min(available, limits.STRIPE_PAYLOAD_BYTES_MAX)
        assert model.place(part, data_count, data_count + parity_count), f"{available} bytes found no place"


def fits(groups: list[Group], width: int, share: int) -> bool:
    """The definition of grouped_share."""
    given = [min(sum(min(room, share) for room in group.rooms), group.limit * share) for group in groups]
    return sum(given) >= width * share


group_lists = st.lists(
    st.builds(Group, st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(0, 3)),
    min_size=1,
    max_size=5,
)


@given(group_lists, st.integers(1, 7))
def test_grouped_share_is_the_largest_that_fits(groups: list[Group], width: int) -> None:
    top = sum(sum(group.rooms) for group in groups)
    assert grouped_share(groups, width) == max(x for x in range(top + 1) if fits(groups, width, x))


@settings(max_examples=200, deadline=None)
@given(group_lists, st.integers(1, 6), st.integers(1, 3))
def test_as_many_stripes_are_placed_in_domains_as_there_is_room_for(
    groups: list[Group], width: int, limit: int
) -> None:
    """In whole shards, down to the last: the choice never spoils what could have been."""
    rooms: list[int] = []
    domains: dict[int, int] = {}
    for domain, group in enumerate(groups):
        for shards in group.rooms:
            domains[len(rooms)] = domain
            rooms.append(shards)
    spread = Spread(Level.DISK, domains, limit)
    expected = grouped_share([Group(group.rooms, limit) for group in groups], width)
    total = 1 << 40
    floor = reserve_bytes(total) // 2
    for _ in range(expected):
        now = [DriveRoom(n, n, floor + MIB * left, total, 0, 0) for n, left in enumerate(rooms)]
        chosen = choose_drives(now, width, MIB, (), spread)
        assert len(set(chosen)) == width and max(spread.held(chosen).values()) <= limit
        for number in chosen:
            rooms[number] -= 1
    assert min(rooms) >= 0


def on_hosts(names: str, disks: str = "", width: int = 6, parity: int = 2) -> Spread:
    sites = [
        Site(number, DriveLabels(name.strip("-"), disks[number : number + 1]), number)
        for number, name in enumerate(names)
    ]
    return spread_of(sites, (), width, parity)


def test_a_stripe_is_spread_evenly_over_hosts() -> None:
    spread = on_hosts("aaabbbccc")
    assert spread.level is Level.HOST
    rooms = [room(number, 10 * GIB) for number in range(9)]
    for _ in range(30):
        chosen = choose_drives(rooms, 6, MIB, (), spread)
        assert spread.held(chosen) == {"a": 2, "b": 2, "c": 2}
        rooms = [
            each._replace(free=each.free - MIB, placed=each.placed + MIB) if each.number in chosen else each
            for each in rooms
        ]
    assert {each.placed for each in rooms} == {20 * MIB}, "all drives are used alike"


def test_a_full_host_fills_the_store_rather_than_break_the_rule() -> None:
    rooms = [room(number, GIB if number in (0, 1) else 10 * GIB) for number in range(6)]
    assert usable_space(rooms, 4, 2).free == 4 * GIB
    rooms = [room(number, GIB if number in (0, 1) else 10 * GIB) for number in range(8)]
    assert usable_space(rooms, 4, 2).free == 4 * (62 * GIB // 6)
    assert usable_space(rooms, 4, 2, on_hosts("aabbccdd")).free == 4 * (62 * GIB // 6)
    assert usable_space(rooms, 4, 2, on_hosts("aabbbccc")).free == 4 * GIB
    full = [each._replace(free=0) if each.number < 2 else each for each in rooms]
    assert len(choose_drives(full, 6, MIB, (), on_hosts("aabbbccc"))) == 4


def test_a_shard_that_joins_others_keeps_to_the_rule_but_goes_somewhere() -> None:
    rooms = [room(number, 10 * GIB) for number in range(9)]
    spread = on_hosts("aaabbbccc")
    holders = {0, 1, 3, 4, 6}
    assert choose_drives(rooms, 1, MIB, holders, spread, holders)[0] in (7, 8)
    no_room = [each._replace(free=0) if each.number in (7, 8) else each for each in rooms]
    assert choose_drives(no_room, 1, MIB, holders, spread, holders)[0] in (2, 5)


def test_splitting_a_shared_file_system_gives_nothing_away() -> None:
    rooms = [room(number, 7 * GIB, 70 * GIB, device=number % 2) for number in range(7)]
    parts = split_shared(rooms)
    assert sum(part.free for part in parts) <= 14 * GIB
    with pytest.raises(AssertionError):
        even_share([1], 0)
