"""Extents: which bytes of a file lie where, with the sums that depend on them kept right in the same
transaction.

Every change adjusts three sums: `inodes.allocated` of the file, `live_bytes` of the stripes, and the counter
of allocated bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ciaosfs.base.types import Extent
from ciaosfs.meta.counters import Counter, Counters
from ciaosfs.meta.cutting import cut, join
from ciaosfs.meta.database import Database
from ciaosfs.meta.stripes import Stripes

# The one extent that begins at or before the range is found by the subquery (one step in the index), the
# others follow it. It may end before the range: then it is the neighbour that new data may continue.
_NEAR: Final = (
    "SELECT offset, length, stripe, stripe_offset, stored_length, codec, skip FROM extents"
    " WHERE ino = ?1 AND offset < ?3 AND offset >= coalesce("
    "(SELECT offset FROM extents WHERE ino = ?1 AND offset <= ?2 ORDER BY offset DESC LIMIT 1), ?2)"
    " ORDER BY offset"
)
_INSERT: Final = "INSERT INTO extents VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_RESIZE: Final = "UPDATE extents SET length = ?3, stored_length = ?4 WHERE ino = ?1 AND offset = ?2"
_NTH: Final = "SELECT 1 FROM extents WHERE ino = ? AND offset >= ? AND offset < ? LIMIT 1 OFFSET ?"
_DELETE: Final = "DELETE FROM extents WHERE ino = ? AND offset >= ? AND offset < ?"
_ALLOCATED: Final = "UPDATE inodes SET allocated = allocated + ?2 WHERE ino = ?1"
_LAST: Final = (
    "SELECT offset, length, stripe FROM extents WHERE ino = ?1 AND offset >= ?2 ORDER BY offset DESC LIMIT ?3"
)
_OF_STRIPE: Final = (
    "SELECT ino, offset, length, stripe, stripe_offset, stored_length, codec, skip FROM extents"
    " WHERE stripe = ? AND (ino, offset) > (?, ?) ORDER BY ino, offset LIMIT ?"
)

_OFFSET_MAX: Final = (1 << 63) - 1
"""What SQLite can compare with; callers say "to the end" with anything large."""

_new = tuple.__new__


class Extents:
    """The extents of one database."""

    def __init__(self, database: Database, counters: Counters, stripes: Stripes) -> None:
        self._counters = counters
        self._stripes = stripes
        self._read = database.executor()
        self._write = database.executor()
        self._allocate = database.tree_writer()
        self._database = database
        self._write_many = database.batch_executor()

    def overlapping(self, ino: int, start: int, end: int) -> list[Extent]:
        """The extents that touch file bytes `[start, end)`, whole and in order; none for an empty range."""
        end = min(end, _OFFSET_MAX)
        if start >= end:
            return []
        found = [_new(Extent, row) for row in self._read(_NEAR, (ino, start, end)).fetchall()]
        if found and found[0].offset + found[0].length <= start:
            del found[0]
        return found

    def has_more_than(self, count: int, ino: int, start: int, end: int) -> bool:
        """Whether more than `count` extents begin in `[start, end)`; takes 30 ns for each up to there."""
        return self._read(_NTH, (ino, start, min(end, _OFFSET_MAX), count)).get is not None

    def replace(self, ino: int, start: int, end: int, new: Sequence[Extent]) -> int:
        """Make `new` all that there is in `[start, end)`; returns by how much `allocated` changed.

        `new` is in order, without overlaps, and inside the range; what it leaves out becomes a hole. Extents
        that reach out of the range keep their outer parts. Pieces that continue each other are stored as one.
        """
        end = min(end, _OFFSET_MAX)
        if start >= end:
            assert not new, "new extents leave the range"
            return 0
        live: dict[int, int] = {}
        allocated = 0
        before: Extent | None = None  # the extent that begins before the range, and what becomes of it
        resized: Extent | None = None
        after: Extent | None = None
        is_clearing = False
        for row in self._read(_NEAR, (ino, start, end)).fetchall():
            old = _new(Extent, row)
            old_end = old.offset + old.length
            if old_end <= start:
                before = old
                continue
            gone = min(old_end, end) - max(old.offset, start)
            allocated -= gone
            live[old.stripe_id] = live.get(old.stripe_id, 0) - gone
            if old.offset < start:
                before = resized = cut(old, old.offset, start)
            else:
                is_clearing = True
            if old_end > end:
                after = cut(old, end, old_end)
        put: list[Extent] = []
        at = start
        for extent in new:
            assert at <= extent.offset and extent.length > 0, "new extents overlap or leave the range"
            at = extent.offset + extent.length
            allocated += extent.length
            live[extent.stripe_id] = live.get(extent.stripe_id, 0) + extent.length
            joined = None if before is None else join(before, extent)
            if joined is None:
                put.append(extent)
            elif put:
                put[-1] = joined
            else:
                resized = joined
            before = joined or extent
        assert at <= end, "new extents leave the range"
        if after is not None:
            put.append(after)
        write = self._write
        if is_clearing:
            write(_DELETE, (ino, start, end))
        if resized is not None:
            write(_RESIZE, (ino, resized.offset, resized.length, resized.stored_length))
        for extent in put:
            write(_INSERT, (ino, *extent))
        self._count(ino, allocated, live)
        return allocated

    def add_first(self, stripe_id: int, files: Sequence[tuple[int, Sequence[Extent]]]) -> None:
        """Give files that have no extents their first ones, which all lie in one stripe: (ino, extents) of each.

        No file is in it twice, and its extents are in order, without overlaps, and as long as they can be. The same as
        `replace` for each file, at half the cost.
        """
        rows = [(ino, e[0], e[1], stripe_id, *e[3:]) for ino, extents in files for e in extents]
        sums = [(ino, sum([extent.length for extent in extents])) for ino, extents in files]
        total = sum([length for _, length in sums])
        self._database.tree_changes += 1
        self._write_many(_INSERT, rows)
        self._write_many(_ALLOCATED, sums)
        self._counters.values[Counter.ALLOCATED_BYTES] += total
        self._stripes.add_live(stripe_id, total)

    def trim_step(self, ino: int, size: int, limit: int) -> bool:
        """Delete up to `limit` extents that begin at or beyond `size`, the last ones first; True: none are
        left.

        For files with too many extents to cut at once. One that begins before `size` and reaches beyond it is
        left alone; `replace` cuts it.
        """
        rows = self._read(_LAST, (ino, size, limit)).fetchall()
        if not rows:
            return True
        live: dict[int, int] = {}
        allocated = 0
        for _, length, stripe_id in rows:
            allocated -= length
            live[stripe_id] = live.get(stripe_id, 0) - length
        self._write(_DELETE, (ino, rows[-1][0], rows[0][0] + 1))
        self._count(ino, allocated, live)
        return len(rows) < limit

    def purge_step(self, ino: int, limit: int) -> bool:
        """Delete up to `limit` extents of the file; True when none are left."""
        return self.trim_step(ino, 0, limit)

    def of_stripe(self, stripe_id: int, after: tuple[int, int], limit: int) -> list[tuple[int, Extent]]:
        """(ino, extent) of the extents in a stripe, in that order after `(ino, offset)`; (0, 0) to start."""
        rows = self._read(_OF_STRIPE, (stripe_id, *after, limit)).fetchall()
        return [(row[0], _new(Extent, row[1:])) for row in rows]

    def _count(self, ino: int, allocated: int, live: dict[int, int]) -> None:
        if allocated:
            self._allocate(_ALLOCATED, (ino, allocated))
            self._counters.values[Counter.ALLOCATED_BYTES] += allocated
        for stripe_id, delta in live.items():
            self._stripes.add_live(stripe_id, delta)
