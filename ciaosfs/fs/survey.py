"""What somebody who looks at a whole open store, and changes nothing, may use of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ciaosfs.drive.workers import Workers
from ciaosfs.meta.reader import Reader
from ciaosfs.stripe.store import ChunkStore


@dataclass(frozen=True, slots=True)
class Survey:
    """`reader` makes a read-only connection at the last commit, for a worker thread; its caller closes it."""

    store_id: bytes
    reader: Callable[[], Reader]
    chunks: ChunkStore
    workers: Workers
