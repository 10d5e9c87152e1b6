"""The quiet tasks: a look at the drives about once a second, and one whether stripes are worth copying together."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from ciaosfs.base.errors import CiaosError
from ciaosfs.stripe.store import ChunkStore

log = logging.getLogger(__name__)

DRIVES_LOOK_S = 1.0
STRIPES_LOOK_S = 2.0


async def watch_drives(chunks: ChunkStore) -> None:
    """Notice drives that go and come, and buffers that nobody uses, for ever."""
    while True:
        await trio.sleep(DRIVES_LOOK_S)
        chunks.prefetcher.tidy()
        try:
            await chunks.refresh_drives()
        except OSError as error:
            log.warning("looking at the drives failed: %s", error)


async def work_off(name: str, step: Callable[[], Awaitable[bool]]) -> None:
    """Take steps while there is something to do, look again later, for ever.

    Trouble with drives is not ours to report: it is tried again.
    """
    while True:
        await trio.sleep(STRIPES_LOOK_S)
        try:
            while await step():
                await trio.lowlevel.checkpoint()
        except (CiaosError, OSError) as error:
            log.info("%s waits: %s", name, error)
        except Exception:  # our bug: nothing has been repointed, the mount stays up
            log.exception("%s failed", name)
