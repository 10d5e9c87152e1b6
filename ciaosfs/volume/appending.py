"""Which volume the next needle of each kind goes to, on each drive; makes volumes when there is none with
room.

A data volume of an earlier session is continued, once, by the first write of a session; log volumes are new
for each session, so that the tail of a log is never written after a crash and recovery reads few files. After
a drive came back, or failed, it gets new volumes only: nothing is known about the tails of its old ones.

Room for the log is reserved on the drive ahead of its tail, in steps: when the drive is full, commits (of
deletes, say) still fit. What the last session had reserved and not used is given back when the log volume of
this one is made.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Collection

import trio

from ciaosfs.base.clock import IdSource
from ciaosfs.base.errors import DriveGoneError, ShardDamagedError, StoreError
from ciaosfs.base.limits import KIB, MIB, VOLUME_LOG_BYTES_MAX, VOLUME_SUPERBLOCK_BYTES
from ciaosfs.base.types import VolumeKind
from ciaosfs.drive.calls import DriveCalls
from ciaosfs.drive.interface import Drive
from ciaosfs.drive.local import volume_name
from ciaosfs.volume.driveset import DriveSet, DriveSlot
from ciaosfs.volume.files import VolumeFiles
from ciaosfs.volume.scan import claimed_end
from ciaosfs.volume.volume import Hold, Volume, VolumeState, continue_volume, create_volume

log = logging.getLogger(__name__)

LOG_STEP_BYTES_MAX = 8 * MIB
LOG_STEP_BYTES_MIN = 64 * KIB
WRITTEN_S = 5.0
"""A write to a sealed log volume that takes longer is on a drive that hangs: its reserved room stays for a later mount."""
VOLUMES_LOOKED_AT_MAX = 64
"""Superblocks read at the start of a session in search of a volume of one kind, newest first."""

OnVolume = Callable[[int, int, VolumeKind, VolumeState], None]
"""(volume id, drive number, kind, state), in the loop, before anything that relies on it."""


def is_full_error(error: BaseException) -> bool:
    """Whether an error says that there is no room, rather than that the device is ill."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def log_step_bytes(own_total: int) -> int:
    """How far ahead of its tail a log volume's room is reserved, on a drive of this many bytes of its own."""
    return max(LOG_STEP_BYTES_MIN, min(LOG_STEP_BYTES_MAX, own_total // 64))


class Appenders:
    """The volumes open for writing. All methods are for the loop."""

    def __init__(
        self, drives: DriveSet, files: VolumeFiles, ids: IdSource, calls: DriveCalls, on_volume: OnVolume
    ) -> None:
        self.known_end: Callable[[int], int] = lambda volume_id: 0
        """Where the last needle ends that the metadata knows in a volume. Blocking."""
        self._drives = drives
        self._files = files
        self._ids = ids
        self._calls = calls
        self._on_volume = on_volume
        self._current: dict[tuple[int, VolumeKind], Volume] = {}
        self._making: dict[tuple[int, VolumeKind], trio.Lock] = {}
        self._may_continue = set(drives.slots)
        self._has_logged: set[int] = set()
        self._retired: dict[int, int] = {}
        """How often each drive's volumes were retired: one that was being made meanwhile is not used."""
        self._making_log: dict[int, int] = {}
        """By drive, the log volume that is under way to become current."""
        self._log_floor = ids.take()
        self.session_floor = self._log_floor
        """Every volume made in this session has a higher id."""

    def current(self, number: int, kind: VolumeKind) -> Volume | None:
        """The volume being appended to, if there is one."""
        return self._current.get((number, kind))

    def is_current(self, volume_id: int) -> bool:
        """Whether a volume is being appended to."""
        return any(volume.volume_id == volume_id for volume in self._current.values())

    def held(self, number: int) -> int:
        """Bytes reserved on a drive for its log and not used yet."""
        volume = self._current.get((number, VolumeKind.LOG))
        return 0 if volume is None else volume.held

    def log_volume_min(self) -> int:
        """No log needle written from now on lies in a volume with a lower id."""
        ids = {volume.volume_id for (_, kind), volume in self._current.items() if kind is VolumeKind.LOG}
        return min(ids.union(self._making_log.values()), default=self._log_floor)

    def plan_reserve(self, volume: Volume) -> int:
        """Where the reserved room of a volume should end now that its tail has moved; 0 when it is as it
        should.

        Asked once per needle, right after its place was taken; the thread that writes the needle reserves.
        """
        step = volume.reserve_step
        wanted = min(volume.tail + step, VOLUME_LOG_BYTES_MAX)
        if not step or volume.tail + step // 2 <= volume.reserve_to or wanted <= volume.reserve_to:
            return 0
        volume.reserve_to = wanted
        return wanted

    async def make_ready(self, slot: DriveSlot, kind: VolumeKind, shard_bytes: int) -> Volume:
        """The drive's volume of this kind, a new one when the current one has no room for such a needle.

        Another task may use up the room before the caller goes on: check again. Raises DriveGoneError,
        OSError.
        """
        key = (slot.number, kind)
        async with self._making.setdefault(key, trio.Lock()):
            volume = self._current.get(key)
            if volume is not None and volume.has_room(shard_bytes):
                return volume
            if volume is not None:
                self._seal(key)
            try:
                volume = await self._make(slot, kind, shard_bytes)
                self._current[key] = volume
            finally:
                if kind is VolumeKind.LOG:
                    self._making_log.pop(slot.number, None)
            self._on_volume(volume.volume_id, slot.number, kind, VolumeState.OPEN)
            return volume

    async def _make(self, slot: DriveSlot, kind: VolumeKind, shard_bytes: int) -> Volume:
        drive = slot.drive
        if drive is None:
            raise DriveGoneError(f"Drive {slot.number} at {slot.path} is absent.")
        retired = self._retired.get(slot.number, 0)
        volume = None
        if kind is VolumeKind.DATA and slot.number in self._may_continue:
            self._may_continue.discard(slot.number)
            volume = await self._calls.call(slot.number, self._continue, drive, undo=_close)
            if volume is not None and not volume.has_room(shard_bytes):
                volume.enter(VolumeState.SEALED)
                volume = None
        if volume is None:
            volume = await self._create(slot, drive, kind)
        if self._retired.get(slot.number, 0) != retired:
            volume.enter(VolumeState.SEALED)
            raise DriveGoneError(
                f"Drive {slot.number} at {slot.path} left or failed while a volume was made."
            )
        return volume

    async def _create(self, slot: DriveSlot, drive: Drive, kind: VolumeKind) -> Volume:
        volume_id = self._ids.take()
        step, trim = 0, False
        if kind is VolumeKind.LOG:
            self._making_log[slot.number] = volume_id
            step = log_step_bytes(self._drives.own_total(slot))
            trim = slot.number not in self._has_logged
            self._has_logged.add(slot.number)
        slot.sent(VOLUME_SUPERBLOCK_BYTES + step)
        try:
            volume = await self._calls.call(
                slot.number,
                self._create_blocking,
                drive,
                volume_id,
                kind,
                step,
                trim,
                undo=lambda volume: _unmake(drive, volume),
            )
        finally:
            slot.arrived(VOLUME_SUPERBLOCK_BYTES + step)
        self._files.add(volume_id, drive)
        return volume

    def _create_blocking(
        self, drive: Drive, volume_id: int, kind: VolumeKind, step: int, trim: bool
    ) -> Volume:
        if trim:
            self._trim_former_log(drive)
        volume = create_volume(drive, self._drives.store_id, volume_id, kind)
        if step:
            volume.reserve_step = step
            volume.reserve_to = VOLUME_SUPERBLOCK_BYTES + step
            reserve_ahead(volume, volume.reserve_to)
        return volume

    def _continue(self, drive: Drive) -> Volume | None:
        """Blocking. The newest data volume of earlier sessions, open for writing; None when there is none."""
        newest = self._newest(drive, VolumeKind.DATA)
        if newest is None:
            return None
        known_end = self.known_end(newest)
        file = drive.open(volume_name(newest))
        try:
            known_end = max(known_end, claimed_end(file, self._drives.store_id, newest, known_end))
        except StoreError as error:
            log.warning("volume %016x is not continued: %s", newest, error)
            return None
        finally:
            file.close()
        return continue_volume(drive, newest, VolumeKind.DATA, known_end)

    def _trim_former_log(self, drive: Drive) -> None:
        """Blocking. Give back what the last log volume of earlier sessions had reserved beyond its end.

        Each session begins its log with this, so looking at the newest is enough. Never for a volume of this
        session: a write into it may be under way.
        """
        newest = self._newest(drive, VolumeKind.LOG)
        if newest is None:
            return
        try:
            file = drive.open(volume_name(newest), writable=True)
            try:
                file.trim()
            finally:
                file.close()
        except (OSError, DriveGoneError) as error:
            log.warning("room reserved for log volume %016x is not given back: %s", newest, error)

    def _newest(self, drive: Drive, kind: VolumeKind) -> int | None:
        for volume_id in self._files.on_drive(drive.number)[:VOLUMES_LOOKED_AT_MAX]:
            try:
                if self._files.superblock(volume_id).kind is kind:
                    return volume_id
            except (ShardDamagedError, StoreError, DriveGoneError, FileNotFoundError) as error:
                log.warning("volume %016x on drive %d is passed over: %s", volume_id, drive.number, error)
        return None

    def retire(self, number: int) -> None:
        """Write no more to the present volumes of a drive; it gets new ones when it takes writes again."""
        self._may_continue.discard(number)
        self._retired[number] = self._retired.get(number, 0) + 1
        for key in [key for key in self._current if key[0] == number]:
            self._seal(key)

    def drop(self, number: int) -> None:
        """The drive is no longer one of the store; its volumes are retired and nothing is under way."""
        assert not any(key[0] == number for key in self._current)
        for kind in VolumeKind:
            self._making.pop((number, kind), None)

    async def seal_logs_except(self, numbers: Collection[int]) -> None:
        """Seal the log volumes of all other drives and give back what is reserved for them.

        For drives that the log has left again: an open volume there would keep `log_volume_min` low for ever.
        """
        for key in list(self._current):
            volume = self._current.get(key)
            if key[0] in numbers or volume is None or volume.kind is not VolumeKind.LOG:
                continue
            if volume.is_being_written:
                continue
            hold = Hold(volume)
            self._seal(key)
            await self._give_back_reserve(volume, hold)

    async def _give_back_reserve(self, volume: Volume, hold: Hold) -> None:
        """Of a sealed volume that nobody else writes to; ends the hold."""
        try:
            await self._calls.call(volume.drive_number, volume.file.trim, release=hold.let_go)
        except (OSError, DriveGoneError) as error:
            log.warning("room reserved for log volume %016x is not given back: %s", volume.volume_id, error)
        finally:
            hold.let_go()

    async def roll_logs(self) -> None:
        """Seal the log volumes and make new ones: what comes from now on has volumes with higher ids.

        Also those that are being written to: under commits without a pause they always are. Making volumes takes some
        syncs; the next commit, which holds up requests, is spared that.
        """
        keys = [key for key in self._current if key[1] is VolumeKind.LOG]
        numbers = [number for number, _ in keys]
        sealed = [(volume := self._current[key], Hold(volume)) for key in keys]
        for key in keys:
            self._seal(key)
        self._log_floor = self._ids.take()
        for number in numbers:
            slot = self._drives.slots.get(number)
            try:
                if slot is not None and slot.is_usable:
                    await self.make_ready(slot, VolumeKind.LOG, 0)
            except (DriveGoneError, OSError) as error:
                log.info("drive %d gets no new log volume yet: %s", number, error)
        with trio.CancelScope(shield=True):  # each hold has to be ended
            for volume, hold in sealed:
                with trio.move_on_after(WRITTEN_S):
                    while volume.writes > 1:  # noqa: ASYNC110 - a few ms, once for each image
                        await trio.sleep(0.005)
                if volume.writes > 1:
                    hold.let_go()
                    hold.let_go()
                else:
                    await self._give_back_reserve(volume, hold)

    def _seal(self, key: tuple[int, VolumeKind]) -> None:
        volume = self._current.pop(key)
        volume.enter(VolumeState.SEALED)
        self._on_volume(volume.volume_id, volume.drive_number, volume.kind, volume.state)

    def close(self) -> None:
        """Stop writing. What is not synced stays unsynced; data volumes stay open as the next session sees
        it."""
        for key in list(self._current):
            volume = self._current.pop(key)
            volume.enter(VolumeState.SEALED)


def reserve_ahead(volume: Volume, end: int) -> None:
    """Reserve a log volume's room up to `end`. Blocking. When the drive is too full the log goes on without.

    Raises OSError when the device fails.
    """
    try:
        volume.file.preallocate(end)
    except OSError as error:
        if not is_full_error(error):
            raise
    else:
        volume.preallocated = max(volume.preallocated, end)


def _close(volume: Volume | None) -> None:
    """Blocking: a volume was opened too late."""
    if volume is not None:
        volume.file.close()


def _unmake(drive: Drive, volume: Volume) -> None:
    """Blocking: a volume was made too late. Nobody knows of it."""
    volume.file.close()
    try:
        drive.remove(volume_name(volume.volume_id))
    except (OSError, DriveGoneError) as error:
        log.debug("volume %016x stays behind: %s", volume.volume_id, error)
