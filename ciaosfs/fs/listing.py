"""Listings of directories that were asked for lately, as long as the tree has not changed since.

Reading a data set means to list the same folders again and again while nobody writes. The rows of a listing are kept
as SQLite gave them, with the number of changes the tables of inodes and names had seen by then: any change of these anywhere
makes all of them void at once, so there is nothing to invalidate and nothing to forget. What goes on in the background
(commits, packing, images) is none.

Who lists a folder mostly lists those in it next. They are noted (`walking`), and while the client is busy with what it got
`read_ahead` fetches one after the other. So are folders that were given new names: what was copied here is mostly
looked at next, and when things have come to rest `read_grown` fetches their beginnings.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from itertools import islice

from ciaosfs.base import limits
from ciaosfs.fs.walking import Expected
from ciaosfs.meta.dentries import ListedRow
from ciaosfs.meta.metadata import Metadata

GROWN_FETCHES_MAX = 4
"""A folder that nobody lists is fetched so often at most, though the tree may change every second."""
LOOKED_AT_MAX = 16
"""Folders that `read_ahead` finds at hand before it takes it that the others are, too."""
GROWN_ROWS = 128
"""What a listing begins with, and more than most folders have."""


class Listings:
    """Parts of directories, at most `limits.LISTED_ROWS_CACHE_MAX` rows of them. For the loop."""

    def __init__(self, meta: Metadata) -> None:
        self._list = meta.dentries.list_after
        self._database = meta.database
        self._at_change = -1
        self._parts: dict[tuple[int, int], tuple[Sequence[ListedRow], int]] = {}
        """By directory and cookie: what comes after that, and how much of it was asked for."""
        self._rows = 0
        """Of all parts, each of which counts as one more: empty ones are not for nothing."""
        self._expected = Expected()
        self._grown: dict[int, int] = {}
        """How often each will be fetched at most; the one that grew last is the last."""
        self._limit = 0
        self.hits = 0
        self.misses = 0
        """How often a part was at hand when it was asked for, and how often not."""

    def after(self, ino: int, cookie: int, limit: int) -> Sequence[ListedRow]:
        """The entries of directory `ino` after `cookie`, in cookie order: at least `limit`, or all that there are."""
        self._check_changes()
        if not cookie:
            self._grown.pop(ino, None)
            self._expected.listed(ino)
        self._limit = limit
        part = self._parts.get((ino, cookie))
        if part is not None:
            rows, asked = part
            if asked >= limit or len(rows) < asked:
                self.hits += 1
                return rows
        self.misses += 1
        return self._fetch(ino, cookie, limit)

    def read_ahead(self) -> tuple[int, Sequence[ListedRow]] | None:
        """Fetch the beginning of one folder that will probably be listed soon: (inode, rows); None when there is none.

        Takes as long as a listing: 0.1 to 0.3 ms.
        """
        self._check_changes()
        if self._rows >= limits.LISTED_ROWS_CACHE_MAX:
            return None
        for ino in islice(self._expected, LOOKED_AT_MAX):
            if (ino, 0) not in self._parts:
                return ino, self._fetch(ino, 0, self._limit)
        return None

    def note_grown(self, ino: int) -> None:
        """A directory was given a name."""
        self._grown.pop(ino, None)
        self._grown[ino] = GROWN_FETCHES_MAX
        if len(self._grown) > limits.LISTINGS_AHEAD_MAX:
            del self._grown[next(iter(self._grown))]

    def read_grown(self) -> tuple[int, Sequence[ListedRow]] | None:
        """As `read_ahead`, of the folders that were noted; again when the tree has changed, but not for ever."""
        self._check_changes()
        if self._rows >= limits.LISTED_ROWS_CACHE_MAX:
            return None
        for ino, left in self._grown.items():
            if (ino, 0) not in self._parts:
                if left > 1:
                    self._grown[ino] = left - 1
                else:
                    del self._grown[ino]
                return ino, self._fetch(ino, 0, max(self._limit, GROWN_ROWS))
        return None

    def _check_changes(self) -> None:
        now = self._database.tree_changes
        if now != self._at_change:
            self._parts.clear()
            self._rows = 0
            self._at_change = now

    def _fetch(self, ino: int, cookie: int, limit: int) -> Sequence[ListedRow]:
        rows = self._list(ino, cookie, limit)
        if self._rows + len(rows) <= limits.LISTED_ROWS_CACHE_MAX:
            self._keep((ino, cookie), rows, limit)
            if rows and len(rows) < limit:
                self._keep((ino, rows[-1][0]), (), limit)  # asked for next, and nothing is there
            self._expected.note(
                ino, [row[2] for row in rows if stat.S_ISDIR(row[3])], is_beginning=not cookie
            )
        return rows

    def _keep(self, key: tuple[int, int], rows: Sequence[ListedRow], limit: int) -> None:
        former = self._parts.get(key)
        if former is not None:
            self._rows -= len(former[0]) + 1
        self._parts[key] = rows, limit
        self._rows += len(rows) + 1
