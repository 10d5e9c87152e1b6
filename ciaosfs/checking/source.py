"""What a check reads, whoever has the store open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ciaosfs.meta.reader import Reader
from ciaosfs.stripe.store import ChunkStore


@dataclass(frozen=True, slots=True)
class Source:
    """What a check reads: `reader` makes a connection at the last commit, `chunks` are the drives.

    In a store that is not mounted, `torn_stripes` and the commit `torn_commit` (0: none) are what the next mount will
    write anew before it promises anything: that they are not whole now is no problem.
    """

    store_id: bytes
    reader: Callable[[], Reader]
    chunks: ChunkStore
    torn_stripes: frozenset[int] = frozenset()
    torn_commit: int = 0
