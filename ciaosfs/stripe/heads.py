"""The heads of needles read lately: what makes the next read of a shard one system call."""

from __future__ import annotations

import threading
from typing import NamedTuple

from ciaosfs.base.limits import NEEDLE_HEADS_CACHE_MAX
from ciaosfs.base.types import ShardPlace
from ciaosfs.codec.needle import NeedleHead
from ciaosfs.volume.files import VolumeFile


class KnownShard(NamedTuple):
    """A needle whose head was verified. `payload_at` is the offset of its payload in the volume."""

    volume: VolumeFile
    head: NeedleHead
    payload_at: int


class HeadCache:
    """At most `entries_max` heads, roughly the last used. May be used from any thread.

    Two generations: what is used moves to the young one, and when that is full the old one is dropped. So a
    hit in the young one is a single look into a dict, which is all that most reads of the loop cost.
    """

    def __init__(self, entries_max: int = NEEDLE_HEADS_CACHE_MAX) -> None:
        self._half = max(1, entries_max // 2)
        self._young: dict[ShardPlace, KnownShard] = {}
        self._old: dict[ShardPlace, KnownShard] = {}
        self._lock = threading.Lock()
        self.learnt = 0
        """Heads that were read from a drive, because they were not known."""

    def get(self, place: ShardPlace) -> KnownShard | None:
        known = self._young.get(place)
        if known is None:
            known = self._old.get(place)
            if known is not None:
                self.put(place, known)
        return known

    def put(self, place: ShardPlace, known: KnownShard) -> None:
        with self._lock:
            if len(self._young) >= self._half:
                self._old = self._young
                self._young = {}
            self._young[place] = known

    def learn(self, place: ShardPlace, known: KnownShard) -> None:
        """As `put`, for a head that was read from its drive."""
        with self._lock:
            self.learnt += 1
        self.put(place, known)

    def drop(self, place: ShardPlace) -> None:
        with self._lock:
            self._young.pop(place, None)
            self._old.pop(place, None)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
