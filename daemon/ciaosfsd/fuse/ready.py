"""Answers to listings that are made ahead: a walk waits for nothing but their copying.

A client that got a listing is busy with it for a while, and longer than the same listing takes here. Meanwhile, in the
loop's idle moments, the rows of the folder it will probably list next are fetched (`FileSystem.list_ahead`) and their
entries made; then those of the rows it got, for the next walk. Not more than that: what takes 0.1 ms must not stand in
the way of the request that comes when the client is done.

There are no such moments where client and daemon share a processor. So what was copied here is made ready as soon as
nobody asks for anything for a while (`FileSystem.list_grown`), before it is looked at for the first time; and made ready
again while a commit, which has changed it, is synced.

Rows are kept by the file system while the tree does not change; an entry is good for as long as its rows are the very same
object, and no file has got or lost bytes that wait in memory, which count for st_blocks and of which rows do not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import pyfuse3
import trio

from ciaosfs.base import limits
from ciaosfs.meta.dentries import ListedRow
from ciaosfsd.fuse.attributes import CACHE_S, ListingEntry

if TYPE_CHECKING:
    from ciaosfs.fs.filesystem import FileSystem

QUIET_S = 0.02
"""So long nobody asks for anything when things are quiet."""
CALM_S = 0.2
"""While they stay so, and nothing is left to be made ready, it is looked so often whether they still are."""
AFTER_CUT_S = 0.001
"""After the cut of a commit so long is enough: who wants it synced waits for that."""
STEPS = 3
"""Of work ahead for each listing that a client got: fetch one, make its entries, make those of the one it got."""


_Listing: TypeAlias = tuple[int, int, Sequence[ListedRow]]
"""Directory, the cookie it begins after, rows."""
Entry: TypeAlias = tuple[bytes, pyfuse3.EntryAttributes, int]
"""Name, attributes and cookie, as `pyfuse3.readdir_reply` takes them."""
_Ready: TypeAlias = tuple[Sequence[ListedRow], list[Entry]]
"""Rows, and the entries that were made of them."""


class ReadyListings:
    """The entries of at most `limits.LISTED_ROWS_CACHE_MAX` rows, by the directory and the cookie they begin after."""

    def __init__(self, filesystem: FileSystem, cache_s: float = CACHE_S) -> None:
        """`cache_s`: how long the kernel may keep what it is told."""
        self._fs = filesystem
        self._cache_s = cache_s
        self._ready: dict[tuple[int, int], _Ready] = {}
        self._count = 0
        self._mark = (-1, 0)
        """The file system's `listing_mark` that all of these are of."""
        self._got: _Listing | None = None
        self._ahead: _Listing | None = None
        self._steps = 0
        self._is_digesting = False

    def entries(self, ino: int, cookie: int, rows: Sequence[ListedRow]) -> Sequence[Entry] | None:
        """An entry for each of `rows`, as a client gets them; None when they are not ready, but perhaps next time."""
        self._steps = STEPS if rows else 0
        self._is_digesting = bool(rows)
        if self._fs.listing_mark == self._mark:
            ready = self._ready.get((ino, cookie))
            if ready is not None and ready[0] is rows:
                return ready[1]
        if rows:
            self._got = ino, cookie, rows
        return None

    def is_digesting(self) -> bool:
        """Whether a client has got a listing since this was asked last."""
        is_digesting, self._is_digesting = self._is_digesting, False
        return is_digesting

    def use_idle_moment(self) -> bool:
        """Work ahead a little (under 0.3 ms), if the file system has nothing else to do; False when there is nothing."""
        if self._fs.use_idle_moment():
            return True
        if not self._steps:
            return False
        self._steps -= 1
        if self._ahead is not None:
            self._make(*self._ahead)
            self._ahead = None
        elif self._steps == STEPS - 1 and (ahead := self._fs.list_ahead()) is not None:
            self._ahead = ahead[0], 0, ahead[1]
        elif self._got is not None:
            self._make(*self._got)
            self._got = None
        else:
            return False
        return True

    async def use_quiet(self, count_requests: Callable[[], int]) -> None:
        """Make folders that have grown ready whenever nobody asks for a while (after a cut: for a moment). For ever."""
        before = -1
        while True:
            is_calm = False
            while (now := count_requests()) == before and not is_calm:
                if (grown := self._fs.list_grown()) is not None:
                    self._make(grown[0], 0, grown[1])
                    await trio.lowlevel.checkpoint()
                else:
                    is_calm = True
            before = now
            with trio.move_on_after(CALM_S if is_calm else QUIET_S) as waiting:
                await self._fs.wait_cut()
            if not waiting.cancelled_caught:
                before = count_requests()
                await trio.sleep(AFTER_CUT_S)

    def _make(self, ino: int, cookie: int, rows: Sequence[ListedRow]) -> None:
        former = self._ready.pop((ino, cookie), None)
        if former is not None:
            self._count -= len(former[0]) + 1
        mark = self._fs.listing_mark
        if mark != self._mark or self._count + len(rows) > limits.LISTED_ROWS_CACHE_MAX:
            self._ready.clear()
            self._count = 0
            self._mark = mark
        self._count += len(rows) + 1
        is_pending, pending_bytes_of = mark[1] != 0, self._fs.pending_bytes_of
        made: list[Entry] = []
        for row in rows:
            attributes = ListingEntry(self._cache_s).fill(row, pending_bytes_of(row[2]) if is_pending else 0)
            made.append((row[1], attributes, row[0]))
        self._ready[ino, cookie] = rows, made
