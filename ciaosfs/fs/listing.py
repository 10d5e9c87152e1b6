"""Listings of directories that were asked for lately, as long as nothing at all has changed since.

Reading a data set means to list the same folders again and again while nobody writes. The rows of a listing are kept
as SQLite gave them, with the number of row changes the metadata had seen by then: any change anywhere makes all of
them void at once, so there is nothing to invalidate and nothing to forget.

Who lists a folder mostly lists those in it next. They are noted, and while the client is busy with what it got
`read_ahead` fetches one after the other.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Sequence

from ciaosfs.base import limits
from ciaosfs.meta.dentries import ListedRow
from ciaosfs.meta.metadata import Metadata


class Listings:
    """Parts of directories, at most `limits.LISTED_ROWS_CACHE_MAX` rows of them. For the loop."""

    def __init__(self, meta: Metadata) -> None:
        self._list = meta.dentries.list_after
        self._changes = meta.database.changes
        self._at_change = -1
        self._parts: dict[tuple[int, int, int], Sequence[ListedRow]] = {}
        self._rows = 0
        self._ahead: deque[int] = deque(maxlen=limits.LISTINGS_AHEAD_MAX)
        self._limit = 0
        self.hits = 0
        self.misses = 0
        """How often a part was at hand when it was asked for, and how often not."""

    def after(self, ino: int, cookie: int, limit: int) -> Sequence[ListedRow]:
        """Up to `limit` entries of directory `ino` after `cookie`, in cookie order."""
        self._check_changes()
        self._limit = limit
        key = (ino, cookie, limit)
        rows = self._parts.get(key)
        if rows is None:
            self.misses += 1
            return self._fetch(key)
        self.hits += 1
        return rows

    def read_ahead(self) -> tuple[int, Sequence[ListedRow]] | None:
        """Fetch the beginning of one folder that will probably be listed soon: (inode, rows); None when there is none.

        Takes as long as a listing: 0.1 to 0.3 ms.
        """
        self._check_changes()
        while self._ahead and self._rows < limits.LISTED_ROWS_CACHE_MAX:
            key = (self._ahead.popleft(), 0, self._limit)
            if key not in self._parts:
                return key[0], self._fetch(key)
        return None

    def _check_changes(self) -> None:
        now = self._changes()
        if now != self._at_change:
            self._parts.clear()
            self._rows = 0
            self._at_change = now

    def _fetch(self, key: tuple[int, int, int]) -> Sequence[ListedRow]:
        rows = self._list(*key)
        if self._rows + len(rows) <= limits.LISTED_ROWS_CACHE_MAX:
            self._parts[key] = rows
            self._rows += len(rows)
            self._ahead.extend([row[2] for row in rows if stat.S_ISDIR(row[3])])
        return rows
