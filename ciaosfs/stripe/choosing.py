"""The drives as they are now, put before the pure functions of `placement`: space, and who gets the next
needles."""

from __future__ import annotations

from collections.abc import Collection

from ciaosfs.base import limits
from ciaosfs.base.types import Space
from ciaosfs.codec.needle import needle_bytes_for
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
from ciaosfs.volume.driveset import DriveSet, DriveState


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
        self._rooms_version = -1

    def space(self) -> Space:
        """Usable space; computed again only when something was sent or the drives were looked at."""
        if self._drives.version != self._space_version:
            self._space = usable_space(self._rooms(), self._data_count, self._parity_count)
            self._space_version = self._drives.version
        return self._space

    def for_data(self, shape: Shape, count: int, exclude: Collection[int]) -> list[int]:
        """Drives for the shards of a coded stripe, those with the most room first."""
        return choose_drives(self._rooms(), count, needle_bytes_for(shape.shard_bytes), exclude)

    def for_log(self, count: int, exclude: Collection[int]) -> list[int]:
        """Drives for a commit: always the lowest numbers, so that few logs need a sync; full ones only at
        last.

        A full drive may well take a commit, in the room that its log volume has reserved.
        """
        slots = [slot for slot in self._drives.usable() if slot.number not in exclude]
        slots.sort(key=lambda slot: (slot.state is DriveState.FULL, slot.number))
        return [slot.number for slot in slots[:count]]

    def for_hot(self, shape: Shape, count: int, exclude: Collection[int]) -> list[int]:
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
        return sorted(numbers)[:count]

    def _rooms(self) -> list[DriveRoom]:
        """The drives that count as there, each with its own part of what it shares; kept until something
        changes."""
        if self._drives.version == self._rooms_version:
            return self._rooms_kept
        free: dict[int, int] = {}
        rooms = []
        for slot in self._drives.usable():
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
        self._rooms_kept = split_shared(rooms)
        self._rooms_version = self._drives.version
        return self._rooms_kept
