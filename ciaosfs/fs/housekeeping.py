"""The quiet task: looks at the drives about once a second."""

from __future__ import annotations

import logging

import trio

from ciaosfs.stripe.store import ChunkStore

log = logging.getLogger(__name__)

DRIVES_LOOK_S = 1.0


async def watch_drives(chunks: ChunkStore) -> None:
    """Notice drives that go and come, for ever."""
    while True:
        await trio.sleep(DRIVES_LOOK_S)
        try:
            await chunks.refresh_drives()
        except OSError as error:
            log.warning("looking at the drives failed: %s", error)
