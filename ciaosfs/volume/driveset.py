"""The drives of a store: which are there, what state they are in, and what room they have.

A drive is *online*, *full* (it refused bytes for lack of room, and may take some again), *failing* (a write
or sync on it raised an error of the device) or *absent* (its path does not lead to it any more, although
descriptors may still work). Shards on an absent drive count as missing, on a failing one they are still
tried. Writes go to online drives. A drive may besides be *draining*: it is to be removed, is read as ever, and takes
writes only while there are fewer others than a stripe has shards.

Drives come and go while the set is open; a number stands for one drive for ever.

Space is measured now and then (`statvfs`) and tracked in between: bytes are *sent* when a position is taken
for them and *arrived* when their write has ended. A measurement may or may not include what was on its way
when it began, so that is subtracted until the next one: the figure errs on the full side.

Everything here is for the loop, except `DriveSet.open` and `DriveSlot.look`, which block.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ciaosfs.base import clock
from ciaosfs.base.config import DriveConfig
from ciaosfs.base.errors import DriveGoneError, ForeignDriveError, StoreBusyError, StoreError
from ciaosfs.base.limits import MIB
from ciaosfs.drive.interface import Drive, FreeSpace
from ciaosfs.drive.local import open_drive

log = logging.getLogger(__name__)

FAILING_RETRY_S = 5.0
"""A failing drive is tried again after this; the pause doubles with every failure up to
FAILING_RETRY_MAX_S."""
FAILING_RETRY_MAX_S = 300.0
FULL_GROWTH_BYTES = 1 * MIB
"""A full drive is used again when this much more is free on it than when it refused, or since."""
FULL_RETRY_S = 30.0
"""A full drive is tried again after this even if no more room is measured: quotas and inodes are not seen."""
FORMER_DRIVES_MAX = 8
"""Drives that left are closed only after this many more departures: no call on one takes that long."""

DriveOpener = Callable[[str, bytes, int], Drive]
"""(path, store id, number) -> the drive there. Raises DriveGoneError, StoreError, OSError."""


class DriveState(StrEnum):
    """See the module's first paragraph."""

    ONLINE = "online"
    FULL = "full"
    FAILING = "failing"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class DriveStatus:
    """One drive, for people. `free` and `total` are bytes of its file system, `reason` says why it is not
    online, `labels` are those of the configuration by name."""

    number: int
    path: str
    state: DriveState
    free: int
    total: int
    reason: str
    is_draining: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    arrivals: int = 0
    """How often the drive was taken in since the store was opened, the opening included."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a blocking look at a drive's path found. `names` is set when the drive was opened anew."""

    drive: Drive | None
    space: FreeSpace | None
    names: tuple[str, ...] | None
    reason: str
    owner: bytes | None = None
    """The other store that the drive there belongs to, if it does."""
    is_busy: bool = False
    """Another process has the drive."""


class ChangeCount:
    """Rises with everything that may change how much room there is; shared by the slots of a set."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class DriveSlot:
    """One position of the store and the drive that is in it at present, if any."""

    def __init__(
        self, config: DriveConfig, store_id: bytes, opener: DriveOpener, changes: ChangeCount
    ) -> None:
        self.number = number = config.number
        self.path = str(config.path)
        self.labels = config.labels
        self.is_draining = False
        self.drive: Drive | None = None
        self.reason = ""
        self.owner: bytes | None = None
        """The other store that the drive at `path` belongs to, if it does."""
        self.retry_at_s = 0.0
        self._store_id = store_id
        self._opener = opener
        self._uuid = config.uuid
        self._is_failing = False
        self._arrivals = 0
        self._is_full = False
        self._full_retry_at_s = 0.0
        self._full_free = 0
        self._retry_pause_s = FAILING_RETRY_S
        self._space = FreeSpace(-1 - number, 0, 0)
        self._spent = 0
        self._spent_since_look = 0
        self._on_way = 0
        self._writes = 0
        self._former: deque[Drive] = deque()
        self._changes = changes
        self.placed = 0
        """Bytes sent in this session."""

    @property
    def state(self) -> DriveState:
        if self.drive is None:
            return DriveState.ABSENT
        if self._is_failing:
            return DriveState.FAILING
        return DriveState.FULL if self._is_full else DriveState.ONLINE

    @property
    def is_usable(self) -> bool:
        """Whether the drive counts as there for writes, full or not."""
        return self.drive is not None and not self._is_failing

    @property
    def is_being_written(self) -> bool:
        """Whether writes that were sent have not ended."""
        return self._writes > 0

    @property
    def device(self) -> int:
        """Drives with the same number here share their free space."""
        return self._space.device_id

    @property
    def measured_free(self) -> int:
        return self._space.free_bytes

    @property
    def total(self) -> int:
        return self._space.total_bytes

    @property
    def spent(self) -> int:
        """Bytes sent that the last measurement may not include."""
        return self._spent

    def status(self) -> DriveStatus:
        free = max(0, self._space.free_bytes - self._spent)
        return DriveStatus(
            self.number,
            self.path,
            self.state,
            free,
            self._space.total_bytes,
            self.reason,
            self.is_draining,
            self.labels.fields(),
            self._arrivals,
        )

    def sent(self, length: int) -> None:
        """A position for `length` bytes was taken: they are on their way. Pair with `arrived`."""
        self._changes.value += 1
        self._writes += 1
        self._on_way += length
        self._spent += length
        self._spent_since_look += length
        self.placed += length

    def arrived(self, length: int) -> None:
        """The write of bytes that were sent has ended, well or badly."""
        self._writes -= 1
        self._on_way -= length
        assert self._on_way >= 0 and self._writes >= 0

    def look(self) -> Look:
        """Look whether the drive is there, and measure it. Blocking, changes nothing: `saw` takes the
        answer."""
        drive = self.drive
        try:
            if drive is not None and drive.is_present():
                return Look(drive, drive.free(), None, "")
            drive = self._opener(self.path, self._store_id, self.number)
        except StoreBusyError as error:
            return Look(None, None, None, str(error), is_busy=True)
        except ForeignDriveError as error:
            return Look(None, None, None, str(error), owner=error.owner)
        except (DriveGoneError, StoreError, OSError) as error:
            return Look(None, None, None, str(error))
        try:
            if drive.uuid != self._uuid:
                raise StoreError(
                    f"Another drive {self.number} has taken the place of this one at {self.path}."
                )
            # A killed process leaves writes that can be read and are not durable yet. What is read from here
            # on is built upon: a later commit that is synced must not find its parent gone after a power cut.
            drive.sync_all()
            return Look(drive, drive.free(), tuple(drive.names()), "")
        except (DriveGoneError, StoreError, OSError) as error:
            drive.close()
            return Look(None, None, None, str(error))

    def looking(self) -> None:
        """A look begins: what is on its way now may be missing from what it measures."""
        self._spent_since_look = self._on_way

    def saw(self, look: Look) -> None:
        """Take over what a look found. The caller deals with the volumes of a drive that went or came."""
        self._changes.value += 1
        self.owner = look.owner
        if look.drive is None or look.space is None:
            self._left(look.reason)
            return
        if look.drive is not self.drive:
            self._came(look.drive)
        if self._is_full:
            grown = look.space.free_bytes - self._full_free
            if grown >= FULL_GROWTH_BYTES or clock.monotonic_s() >= self._full_retry_at_s:
                self._is_full = False
                self.reason = ""
            self._full_free = min(self._full_free, look.space.free_bytes)
        self._space = look.space
        self._spent = self._spent_since_look

    def failed(self, reason: str) -> None:
        """The device raised an error: no more writes until a retry succeeds."""
        if self.drive is None:
            return
        self._changes.value += 1
        if not self._is_failing:
            log.error("drive %d at %s is failing: %s", self.number, self.path, reason)
        self._is_failing = True
        self.reason = reason
        self.retry_at_s = clock.monotonic_s() + self._retry_pause_s
        self._retry_pause_s = min(2 * self._retry_pause_s, FAILING_RETRY_MAX_S)

    def recovered(self) -> None:
        """A retry succeeded. The pause before the next one stays long: a drive that comes and goes is not
        trusted."""
        log.warning("drive %d at %s takes writes again", self.number, self.path)
        self._changes.value += 1
        self._is_failing = False
        self.reason = ""

    def refused(self) -> None:
        """The drive had no room for a write, whatever was measured. Looks that find more clear this."""
        self._changes.value += 1
        self._is_full = True
        self._full_retry_at_s = clock.monotonic_s() + FULL_RETRY_S
        self._full_free = max(0, self._space.free_bytes - self._spent)
        self.reason = "no space left on it"

    def close(self) -> None:
        """Let go of the drive; no thread uses it any more."""
        self._set_aside()
        while self._former:
            self._former.popleft().close()

    def _set_aside(self) -> None:
        """Have no drive. It is not closed yet: a thread may be opening a file through it at this moment."""
        drive, self.drive = self.drive, None
        if drive is not None:
            self._former.append(drive)
            if len(self._former) > FORMER_DRIVES_MAX:
                self._former.popleft().close()

    def _left(self, reason: str) -> None:
        if self.drive is not None or reason != self.reason:
            log.error("drive %d at %s is absent: %s", self.number, self.path, reason)
        self._set_aside()
        self._is_failing = self._is_full = False
        self.reason = reason

    def _came(self, drive: Drive) -> None:
        self._set_aside()
        if self.reason:
            log.warning("drive %d at %s is there again", self.number, self.path)
        self.drive = drive
        self._arrivals += 1
        self._is_failing = self._is_full = False
        self._retry_pause_s = FAILING_RETRY_S
        self.reason = ""


class DriveSet:
    """All drives of a store, in the order of their numbers. `close` ends it; ChunkStore does so for its
    own."""

    def __init__(
        self,
        store_id: bytes,
        slots: Sequence[DriveSlot],
        names: dict[int, tuple[str, ...]],
        changes: ChangeCount,
        opener: DriveOpener,
    ) -> None:
        """For `open`. `names` holds the volume files of each present drive."""
        self.store_id = store_id
        self.slots = {slot.number: slot for slot in slots}
        self.names_at_open = names
        self.width = 0
        """Shards of a stripe, k+m; set by the ChunkStore. While there are fewer drives, draining ones are written, too."""
        self._changes = changes
        self._opener = opener

    @property
    def version(self) -> int:
        """Differs whenever the room on the drives, or which of them are there, may differ."""
        return self._changes.value

    @classmethod
    def of(cls, store_id: bytes, drives: Sequence[DriveConfig], opener: DriveOpener = open_drive) -> DriveSet:
        """The drives of a store, none of which was looked at yet: see `stripe/arriving.py`."""
        changes = ChangeCount()
        ordered = sorted(drives, key=lambda drive: drive.number)
        return cls(
            store_id,
            [DriveSlot(config, store_id, opener, changes) for config in ordered],
            {},
            changes,
            opener,
        )

    @classmethod
    def open(
        cls, store_id: bytes, drives: Sequence[DriveConfig], opener: DriveOpener = open_drive
    ) -> DriveSet:
        """Open the drives of a store. Blocking, and as long as the slowest drive likes.

        A drive that is not there, or is not the one the configuration names, is absent, with the reason in
        its status; how many may be is for the store to judge.
        """
        opened = cls.of(store_id, drives, opener)
        for slot in opened.slots.values():
            opened.saw_first(slot, slot.look())
        return opened

    def saw_first(self, slot: DriveSlot, look: Look) -> None:
        """Take over the look at a drive with which a store is opened."""
        slot.saw(look)
        if look.names is not None:
            self.names_at_open[slot.number] = look.names

    def new_slot(self, config: DriveConfig) -> DriveSlot:
        """A slot for a drive that is about to join. It has no drive until a look was taken over."""
        assert config.number not in self.slots
        return DriveSlot(config, self.store_id, self._opener, self._changes)

    def join(self, slot: DriveSlot) -> None:
        """From now on the drive is one of the set."""
        assert slot.number not in self.slots
        self.slots[slot.number] = slot
        self._changes.value += 1

    def drop(self, number: int) -> None:
        """The drive is no longer one of the set; nothing is under way to it. Closes it."""
        self.slots.pop(number).close()
        self._changes.value += 1

    def set_draining(self, number: int, is_draining: bool) -> None:
        """Whether a drive is about to be removed."""
        self.slots[number].is_draining = is_draining
        self._changes.value += 1

    def usable(self) -> list[DriveSlot]:
        """The drives that writes may go to: there and not failing, full ones included.

        Draining ones only while there are fewer others than a stripe has shards: a stripe with all its shards is worth
        more than a drive that is empty soon.
        """
        usable = [slot for slot in self.slots.values() if slot.is_usable]
        staying = [slot for slot in usable if not slot.is_draining]
        return staying if len(staying) >= self.width else usable

    def present(self) -> list[DriveSlot]:
        return [slot for slot in self.slots.values() if slot.drive is not None]

    def own_total(self, slot: DriveSlot) -> int:
        """A drive's size, or its part of the size of a file system it shares with others of this store."""
        return slot.total // max(1, sum(other.device == slot.device for other in self.present()))

    def free_on_device(self, device: int) -> int:
        """Bytes free on one file system, without what is on its way to any drive on it."""
        slots = [slot for slot in self.present() if slot.device == device]
        return max(0, min(slot.measured_free for slot in slots) - sum(slot.spent for slot in slots))

    def all_present(self) -> bool:
        """Whether every drive of the store is there: then a volume that is not found is lost."""
        return all(slot.drive is not None for slot in self.slots.values())

    def statuses(self) -> list[DriveStatus]:
        return [slot.status() for slot in self.slots.values()]

    def close(self) -> None:
        for slot in self.slots.values():
            slot.close()
