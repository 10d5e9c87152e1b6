"""The drives as they are now, put before the pure functions of `placement`: space, and who gets the next
needles."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ciaosfs.base import limits
from ciaosfs.base.types import Space
from ciaosfs.codec.needle import needle_bytes_for
from ciaosfs.drive.interface import FreeSpace
from ciaosfs.stripe.domains import NO_SPREAD, Site, Spread, in_order, spread_of, weakness
from ciaosfs.stripe.layout import Shape
from ciaosfs.stripe.placement import (
    DriveRoom,
    choose_drives,
    reserve_bytes,
    room_above,
    split_shared,
    usable_space,
)
from ciaosfs.volume.appending import Appenders
from ciaosfs.volume.driveset import DriveSet, DriveSlot, DriveState

JOINING = -1
"""The number of a drive that is not one of the store yet."""


class Chooser:
    """Answers from tracked figures, without asking the drives. All methods are for the loop."""

    def __init__(self, drives: DriveSet, appenders: Appenders, data_count: int, parity_count: int) -> None:
        self._drives = drives
        self._appenders = appenders
        self._data_count = data_count
        self._parity_count = parity_count
        self._space = Space(0, 0, 0)
        self._space_version = -1
        self._rooms_kept: list[DriveRoom] = []
        self._spread = NO_SPREAD
        self._spread_for: list[tuple[int, int]] = []
        self._rooms_version = -1

    def space(self) -> Space:
        """Usable space; computed again only when something was sent or the drives were looked at."""
        if self._drives.version != self._space_version:
            rooms = self._rooms()
            self._space = usable_space(rooms, self._data_count, self._parity_count, self._spread)
            self._space_version = self._drives.version
        return self._space

    def weakness(self) -> str | None:
        """What the loss of one disk or host would cost, as a sentence; None when stripes survive it. Of all drives, as
        if those that are absent were back."""
        staying = [_site(slot) for slot in self._drives.slots.values() if not slot.is_draining]
        return weakness(staying, self._data_count, self._parity_count)

    def rooms_without(self, number: int, its_bytes: int, joining: FreeSpace | None = None) -> dict[int, int]:
        """See ChunkStore.rooms_without."""
        slots = [slot for slot in self._drives.usable() if slot.number != number and not slot.is_draining]
        rooms = self._raw_rooms(slots)
        if joining is not None:
            rooms.append(DriveRoom(JOINING, *joining, held=0, placed=0))
        leaving = self._drives.slots[number]
        given_back = its_bytes if leaving.drive is not None else 0
        rooms = [
            room._replace(free=room.free + given_back) if room.device == leaving.device else room
            for room in rooms
        ]
        return {room.number: room_above(room, reserve_bytes(room.total)) for room in split_shared(rooms)}

    def for_data(
        self, shape: Shape, count: int, exclude: Collection[int], holders: Collection[int] = ()
    ) -> list[int]:
        """Drives for the shards of a coded stripe, those with the most room first; `holders` have others of it."""
        rooms, needle_bytes = self._rooms(), needle_bytes_for(shape.shard_bytes)
        return choose_drives(rooms, count, needle_bytes, exclude, self._spread, holders)

    def for_log(self, count: int, exclude: Collection[int], holders: Collection[int] = ()) -> list[int]:
        """Drives for a commit: always the lowest numbers, so that few logs need a sync; full ones only at
        last.

        A full drive may well take a commit, in the room that its log volume has reserved. Not all copies go to one disk
        or host, if there is another.
        """
        slots = [slot for slot in self._drives.usable() if slot.number not in exclude]
        slots.sort(key=lambda slot: (slot.state is DriveState.FULL, slot.number))
        return in_order([_site(slot) for slot in slots], count, self._parity_count, self._sites(holders))

    def for_hot(
        self, shape: Shape, count: int, exclude: Collection[int], holders: Collection[int] = ()
    ) -> list[int]:
        """Drives for a replicated stripe: as for a commit, but only where there is plenty of room.

        Copies take more room than shards, and always from the same drives. Below what may be waiting in
        memory that would break the promise made by `space`, which counts on coded stripes.
        """
        needle_bytes = needle_bytes_for(shape.shard_bytes)
        numbers = []
        for room in self._rooms():
            plenty = reserve_bytes(room.total) + min(limits.DIRTY_BYTES_MAX, room.total // 8)
            if room.number not in exclude and room_above(room, plenty) >= needle_bytes:
                numbers.append(room.number)
        return in_order(self._sites(sorted(numbers)), count, self._parity_count, self._sites(holders))

    def _sites(self, numbers: Iterable[int]) -> list[Site]:
        return [_site(self._drives.slots[number]) for number in numbers if number in self._drives.slots]

    def _rooms(self) -> list[DriveRoom]:
        """The drives that count as there, each with its own part of what it shares; kept until something
        changes."""
        if self._drives.version == self._rooms_version:
            return self._rooms_kept
        rooms = self._raw_rooms(self._drives.usable())
        self._rooms_kept = split_shared(rooms)
        where = [(room.number, room.device) for room in rooms]
        if where != self._spread_for:
            self._spread = self._spread_now({room.number for room in rooms})
            self._spread_for = where
        self._rooms_version = self._drives.version
        return self._rooms_kept

    def _raw_rooms(self, slots: Iterable[DriveSlot]) -> list[DriveRoom]:
        """What each drive has, before what is shared is split."""
        free: dict[int, int] = {}
        rooms = []
        for slot in slots:
            device = slot.device
            if device not in free:
                free[device] = self._drives.free_on_device(device)
            rooms.append(
                DriveRoom(
                    number=slot.number,
                    device=device,
                    free=0 if slot.state is DriveState.FULL else free[device],
                    total=slot.total,
                    held=self._appenders.held(slot.number),
                    placed=slot.placed,
                )
            )
        return rooms

    def _spread_now(self, usable: Collection[int]) -> Spread:
        """The rule for new stripes over these drives; it knows where the others are, too."""
        width = min(self._data_count + self._parity_count, len(usable))
        slots = self._drives.slots.values()
        here = [_site(slot) for slot in slots if slot.number in usable]
        others = [_site(slot) for slot in slots if slot.number not in usable]
        return spread_of(here, others, width, self._parity_count)


def _site(slot: DriveSlot) -> Site:
    return Site(slot.number, slot.labels, slot.device)
