"""What the configuration says about the drives goes before what the metadata says: brings the rows in step at opening.

`ciaosfs.toml` changes in one step, by renaming: that step is when a drive is added, when it is said to replace another
one, and when it is let go. A crash between it and the commit with the rows is healed here:

- *listed, no row*: the drive was being added. It gets its row; the drive that it replaces begins to drain.
- *row, not listed, nothing on it*: it was being let go. The rows go.
- *row, not listed, and shards on it*: a person took it out of the file. They count as missing, and repair makes them
  anew; the rows go at a later opening, when nothing refers to them.
"""

from __future__ import annotations

import logging

from ciaosfs.base import clock
from ciaosfs.base.config import StoreConfig
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.volumes import DriveRow, DriveState, Volumes
from ciaosfs.stripe.store import ChunkStore

log = logging.getLogger(__name__)


def sync_drives(config: StoreConfig, meta: Metadata, chunks: ChunkStore) -> None:
    """Before the first request. The rows change in the open transaction; `chunks` learns which drives are draining."""
    volumes = meta.volumes
    rows = {row.number: row for row in volumes.drives()}
    listed = {drive.number: drive for drive in config.drives}
    for number, drive in listed.items():
        row = rows.get(number)
        if row is None:
            volumes.put_drive(DriveRow(number, drive.uuid, DriveState.ACTIVE, clock.now_ns()))
        elif row.uuid != drive.uuid:
            log.warning("drive %d has another uuid in the configuration than before", number)
            volumes.put_drive(row._replace(uuid=drive.uuid))
    for number, drive in listed.items():
        if number not in rows and drive.replaces in listed:
            mark_draining(volumes, drive.replaces)
    for number in rows.keys() - listed.keys():
        if volumes.is_drive_used(number):
            log.error("drive %d is not in the configuration any more, and shards are on it", number)
        else:
            volumes.delete_on_drive(number)
            volumes.delete_drive(number)
    for row in volumes.drives():
        if row.state is DriveState.DRAINING and row.number in listed:
            chunks.set_draining(row.number, True)


def mark_draining(volumes: Volumes, number: int | None) -> None:
    """Note that a drive is to be emptied, if it is known."""
    row = None if number is None else volumes.drive(number)
    if row is not None:
        volumes.put_drive(row._replace(state=DriveState.DRAINING))
