"""Opening the drives of a store, all at the same time, and none without end.

A drive that does not answer within the deadline (`drive/calls.py`) is absent, as one that is not there: the store opens
without it if it can. It is looked at again from then on like any other, and is taken in when it answers.
"""

from __future__ import annotations

import logging
from pathlib import Path

import trio

from ciaosfs.base.config import CONFIG_NAME, StoreConfig
from ciaosfs.base.errors import DriveHangsError, StoreBusyError, StoreError
from ciaosfs.drive.calls import DriveCalls
from ciaosfs.drive.identity import Shape
from ciaosfs.drive.local import open_drive
from ciaosfs.drive.making import identity_at
from ciaosfs.drive.workers import Workers
from ciaosfs.stripe.presence import forget_look
from ciaosfs.volume.driveset import DriveOpener, DriveSet, DriveSlot, Look

log = logging.getLogger(__name__)


async def open_drives(config: StoreConfig, workers: Workers, opener: DriveOpener = open_drive) -> DriveSet:
    """Look at every drive in the configuration. How many may be absent is for the store to judge.

    StoreBusyError when another process has one of them: two that write to one drive undo what the other promised.
    StoreError when the configuration says another k or m than the store was made with: what is written with less parity than
    `status` promises would be lost with m drives.
    """
    drives = DriveSet.of(config.store_id, config.drives, opener)
    calls = DriveCalls(workers, config.parity_count, lambda number: True, lambda number, reason: None)
    looks: dict[int, Look] = {}
    shapes: dict[int, Shape] = {}

    async def look_at(slot: DriveSlot) -> None:
        try:
            looks[slot.number] = look = await calls.call(slot.number, slot.look, undo=forget_look)
            if look.drive is not None:
                identity = await calls.call(slot.number, identity_at, Path(slot.path))
                if identity is not None and identity.shape is not None:
                    shapes[slot.number] = identity.shape
        except DriveHangsError as error:
            looks.setdefault(slot.number, Look(None, None, None, str(error)))
        except (StoreError, OSError) as error:  # it went meanwhile
            log.info("drive %d: %s", slot.number, error)

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
    for number, shape in shapes.items():
        if shape != (config.data_count, config.parity_count):
            drives.close()
            raise StoreError(_changed(config, number, shape))
    return drives


def _changed(config: StoreConfig, number: int, shape: Shape) -> str:
    return (
        f"{config.path / CONFIG_NAME} says data = {config.data_count} and parity = {config.parity_count}, but "
        f"drive {number} was made for {shape.data_count} and {shape.parity_count}, which cannot be changed: "
        "write those there again."
    )
