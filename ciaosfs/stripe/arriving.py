"""Opening the drives of a store, all at the same time, and none without end.

A drive that does not answer within the deadline (`drive/calls.py`) is absent, as one that is not there: the store opens
without it if it can. It is looked at again from then on like any other, and is taken in when it answers.
"""

from __future__ import annotations

import trio

from ciaosfs.base.config import StoreConfig
from ciaosfs.base.errors import DriveHangsError, StoreBusyError
from ciaosfs.drive.calls import DriveCalls
from ciaosfs.drive.local import open_drive
from ciaosfs.drive.workers import Workers
from ciaosfs.stripe.presence import forget_look
from ciaosfs.volume.driveset import DriveOpener, DriveSet, DriveSlot, Look


async def open_drives(config: StoreConfig, workers: Workers, opener: DriveOpener = open_drive) -> DriveSet:
    """Look at every drive in the configuration. How many may be absent is for the store to judge.

    StoreBusyError when another process has one of them: two that write to one drive undo what the other promised.
    """
    drives = DriveSet.of(config.store_id, config.drives, opener)
    calls = DriveCalls(workers, config.parity_count, lambda number: True, lambda number, reason: None)
    looks: dict[int, Look] = {}

    async def look_at(slot: DriveSlot) -> None:
        try:
            looks[slot.number] = await calls.call(slot.number, slot.look, undo=forget_look)
        except DriveHangsError as error:
            looks[slot.number] = Look(None, None, None, str(error))

    calls.start()
    try:
        async with trio.open_nursery() as nursery:
            for slot in drives.slots.values():
                nursery.start_soon(look_at, slot)
    finally:
        calls.close()
    for slot in drives.slots.values():
        drives.saw_first(slot, looks[slot.number])
    for look in looks.values():
        if look.is_busy:
            drives.close()
            raise StoreBusyError(look.reason)
    return drives
