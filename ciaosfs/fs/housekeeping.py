"""The quiet task: looks at the drives about once a second and takes large deleted files apart, a slice at a time."""

from __future__ import annotations

import logging

import trio

from ciaosfs.fs.gate import Gate
from ciaosfs.fs.reclaim import Reclaimer
from ciaosfs.stripe.store import ChunkStore

log = logging.getLogger(__name__)

DRIVES_LOOK_S = 1.0
PURGE_PAUSE_S = 0.002
"""Between two slices of a purge, so that requests go first."""


async def watch_drives(chunks: ChunkStore) -> None:
    """Notice drives that go and come, for ever."""
    while True:
        await trio.sleep(DRIVES_LOOK_S)
        try:
            await chunks.refresh_drives()
        except OSError as error:
            log.warning("looking at the drives failed: %s", error)


async def purge(reclaimer: Reclaimer, gate: Gate) -> None:
    """Work off the queue of unlinked inodes, for ever."""
    while True:
        if gate.closed:
            await gate.wait_open()
        more = reclaimer.step()
        await trio.sleep(PURGE_PAUSE_S if more else DRIVES_LOOK_S)
