"""Looking at the drives: which went, which came back, how much room they have, whether a failing one has
recovered; and which join and leave the store for good."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import trio

from ciaosfs.base import clock
from ciaosfs.base.clock import IdSource
from ciaosfs.base.config import DriveConfig
from ciaosfs.base.errors import DriveGoneError, DriveHangsError
from ciaosfs.base.limits import NEEDLE_LARGE_BYTES
from ciaosfs.base.types import VolumeKind
from ciaosfs.drive.calls import DriveCalls
from ciaosfs.drive.interface import Drive
from ciaosfs.drive.local import volume_name
from ciaosfs.volume.appending import Appenders
from ciaosfs.volume.driveset import DriveSet, DriveSlot, DriveState, Look
from ciaosfs.volume.files import VolumeFiles, volume_id_of
from ciaosfs.volume.volume import Hold

log = logging.getLogger(__name__)


class Presence:
    """Keeps drives, their volumes and the appenders in step. All methods are for the loop."""

    def __init__(
        self,
        drives: DriveSet,
        files: VolumeFiles,
        appenders: Appenders,
        ids: IdSource,
        calls: DriveCalls,
    ) -> None:
        self._drives = drives
        self._files = files
        self._appenders = appenders
        self._ids = ids
        self._calls = calls
        self._turn = trio.Lock()

    def begin(self) -> None:
        """Take in the volumes of the drives that were there when the set was opened."""
        for slot in self._drives.present():
            assert slot.drive is not None
            self._attach(slot.drive, self._drives.names_at_open.get(slot.number, ()))

    async def refresh(self) -> None:
        """Look at every drive, all at the same time."""
        async with self._turn:
            slots = list(self._drives.slots.values())
            looks: dict[int, Look] = {}

            async def look_at(slot: DriveSlot) -> None:
                try:
                    looks[slot.number] = await self._calls.call(slot.number, slot.look, undo=forget_look)
                except DriveHangsError as error:
                    log.debug("no look: %s", error)  # it stays as it was last seen, and counts as failing

            for slot in slots:
                slot.looking()
            async with trio.open_nursery() as nursery:
                for slot in slots:
                    nursery.start_soon(look_at, slot)
            for slot in slots:
                if slot.number in looks:
                    self._take_over(slot, looks[slot.number])
            for slot in slots:
                if (
                    slot.state is DriveState.FAILING
                    and clock.monotonic_s() >= slot.retry_at_s
                    and not self._calls.hangs_now(slot.number)
                ):
                    await self._retry(slot)

    async def join(self, config: DriveConfig) -> None:
        """Take a new drive in; it takes writes at once, or when it is there."""
        async with self._turn:
            slot = self._drives.new_slot(config)
            slot.looking()
            look = await self._calls.call(slot.number, slot.look, undo=forget_look)
            self._drives.join(slot)
            self._take_over(slot, look)

    async def leave(self, number: int, is_dirty: Callable[[int], bool]) -> bool:
        """Let go of a drive that nothing is written to and nothing `is_dirty` on; its volumes are known no more.

        False, and it stays, when it is not at rest. To be called between syncs.
        """
        async with self._turn:
            self._appenders.retire(number)
            if self._drives.slots[number].is_being_written or is_dirty(number):
                return False
            self._appenders.drop(number)
            self._files.detach(number)
            self._drives.drop(number)
            self._calls.renew(number)
            return True

    def _take_over(self, slot: DriveSlot, look: Look) -> None:
        """No await: a drive, its volumes and its appenders change in one step."""
        before = slot.drive
        slot.saw(look)
        if slot.drive is before:
            return
        self._calls.renew(slot.number)
        # Also when a drive came: a volume that was being made on the one before must not be used.
        self._appenders.retire(slot.number)
        if before is not None:
            self._files.detach(slot.number)
        if slot.drive is not None:
            self._attach(slot.drive, look.names or ())

    def _attach(self, drive: Drive, names: Sequence[str]) -> None:
        """A drive that was away may hold volumes with ids above ours, if the clock was set back meanwhile."""
        self._files.attach(drive, names)
        for name in names:
            self._ids.raise_above(volume_id_of(name))

    async def _retry(self, slot: DriveSlot) -> None:
        """A failing drive gets a new volume; if that can be written and synced the drive is back in use."""
        volume = None
        try:
            volume = await self._appenders.make_ready(slot, VolumeKind.DATA, NEEDLE_LARGE_BYTES)
            hold = Hold(volume)
            try:
                await self._calls.call(slot.number, volume.file.sync, release=hold.let_go)
            finally:
                hold.let_go()
        except (OSError, DriveGoneError) as error:
            slot.failed(str(error))
            self._appenders.retire(slot.number)
            if volume is not None:
                await self._remove(slot, volume.volume_id)
        else:
            slot.recovered()

    async def _remove(self, slot: DriveSlot, volume_id: int) -> None:
        """A volume that only a failed retry has seen must not be left behind with every retry."""
        self._files.forget(volume_id)
        if slot.drive is not None:
            try:
                await self._calls.call(slot.number, slot.drive.remove, volume_name(volume_id))
            except (OSError, DriveGoneError) as error:
                log.debug("volume %016x stays behind: %s", volume_id, error)


def forget_look(look: Look) -> None:
    """Blocking: a look that came too late must not keep the drive that it opened."""
    if look.drive is not None and look.names is not None:
        look.drive.close()
