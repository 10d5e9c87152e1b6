"""The daemon with a `MemoryFileSystem` instead of a store's: `python tests/support/memory_daemon.py STORE ...`.

Everything else is the real thing: arguments, lock, log, control socket, FUSE session. For what the edge must
survive, `CIAOSFS_TEST` may name faults: `lying-poll` makes the loop believe now and then that a request is there,
`bad-ending` lets the last flush fail, `no-ready` dies before the mount answers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from types import SimpleNamespace
from typing import Any

from ciaosfsd import services
from ciaosfsd.fuse.waiting import Waiting
from ciaosfsd.main import main

from ciaosfs.base.config import StoreConfig
from ciaosfs.base.errors import NoSpaceError
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.gate import Gate
from ciaosfs.meta.metadata import Metadata
from tests.support.memory_fs import MemoryFileSystem
from tests.support.memory_jobs import open_memory_jobs

FAULTS = os.environ.get("CIAOSFS_TEST", "").split()
LIES_EVERY = 5


@asynccontextmanager
async def open_memory(config: StoreConfig, workers: Workers) -> AsyncIterator[MemoryFileSystem]:
    if "no-ready" in FAULTS:
        os._exit(9)
    filesystem = MemoryFileSystem()
    # Users and tokens are the real thing, in a database that nothing is ever committed to.
    with closing(Metadata.create_fresh(config.path / "meta" / "memory.sqlite", config.store_id)) as meta:
        filesystem.parts = SimpleNamespace(meta=meta, gate=Gate())
        yield filesystem
    if "bad-ending" in FAULTS:
        raise NoSpaceError("The drives cannot take the last commit.")


def lie_about_requests() -> None:
    adopt = Waiting.adopt

    def adopt_and_lie(waiting: Waiting, fd: int) -> None:
        adopt(waiting, fd)
        really, asked = waiting._poll, 0

        def poll(timeout: int) -> list[tuple[int, int]]:
            nonlocal asked
            asked += 1
            return [(fd, 1)] if asked % LIES_EVERY == 0 else really(timeout)

        waiting._poll = poll

    patched: Any = Waiting
    patched.adopt = adopt_and_lie


if __name__ == "__main__":
    patched_services: Any = services
    patched_services.open_store = open_memory
    patched_services.open_jobs = open_memory_jobs
    if "lying-poll" in FAULTS:
        lie_about_requests()
    sys.exit(main())
