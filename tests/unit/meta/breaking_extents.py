"""Changes that break one invariant of extents each; `test_integrity` has the sentences."""

from __future__ import annotations

from ciaosfs.base.types import Extent
from ciaosfs.meta.counters import Counter
from tests.unit.meta.sound import Sound
from tests.unit.meta.support import raw, set_size


def extent(s: Sound, ino: int, extent: Extent) -> None:
    s.sql("INSERT OR REPLACE INTO extents VALUES (?, ?, ?, ?, ?, ?, ?, ?)", ino, *extent)


def extent_of_nobody(s: Sound) -> None:
    extent(s, 4711, raw(0, 5, 2, 50))
    s.meta.stripes.add_live(2, 5)


def extent_of_directory(s: Sound) -> None:
    s.meta.extents.replace(s.directory, 0, 5, [raw(0, 5, 2, 50)])


def impossible_extent(s: Sound) -> None:
    s.sql("UPDATE extents SET stored_length = 9 WHERE ino = ?", s.linked)


def overlapping_extents(s: Sound) -> None:
    extent(s, s.file, raw(39, 5, 2, 50))
    s.meta.stripes.add_live(2, 5)
    s.sql("UPDATE inodes SET allocated = allocated + 5 WHERE ino = ?", s.file)
    s.meta.counters.add(Counter.ALLOCATED_BYTES, 5)


def extent_beyond_the_file(s: Sound) -> None:
    set_size(s.meta, s.file, 99)


def extent_between_the_file_and_its_trim(s: Sound) -> None:
    s.meta.trims.put(s.file, 99)
    set_size(s.meta, s.file, 98)


def trim_of_nobody(s: Sound) -> None:
    s.meta.trims.put(4711, 0)


def trim_of_directory(s: Sound) -> None:
    s.meta.trims.put(s.directory, 0)


def file_beyond_its_trim(s: Sound) -> None:
    s.meta.trims.put(s.file, 99)


def extent_in_no_stripe(s: Sound) -> None:
    s.sql("UPDATE extents SET stripe = 4711 WHERE ino = ?", s.linked)
    s.sql("UPDATE stripes SET live_bytes = 0 WHERE stripe = 2")


def extent_beyond_the_stripe(s: Sound) -> None:
    s.sql("UPDATE extents SET stripe_offset = 4090 WHERE ino = ?", s.linked)


def wrong_allocated(s: Sound) -> None:
    s.sql("UPDATE inodes SET allocated = allocated + 1 WHERE ino = ?", s.file)
    s.meta.counters.add(Counter.ALLOCATED_BYTES, 1)


def wrong_live_bytes(s: Sound) -> None:
    s.meta.stripes.add_live(2, 1)
