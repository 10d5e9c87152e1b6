"""The keys below a folder in the order of their bytes, page by page, with bounded memory and work.

A folder's names lie in the order of their hashes. Looking through them once, the smallest so many after the last one
that was listed are kept and sorted; when they are used up and there were more, it is looked through again. A name
that is there all the while is listed once, whatever happens to others; one that comes or goes meanwhile may be listed
or not. Folders are gone into where they stand in the order: their names count with the slash behind them.

Each folder is asked for in a thread, as the caller: what he may not read is told as such, and hides nothing else.
"""

from __future__ import annotations

import errno
import heapq
import stat
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError, FsError
from ciaosfs.objects.kept import Kept
from ciaosfs.objects.keys import Names, show

ROWS = 256
"""Looked at between two moments in which others run, in about 0.3 ms."""
KINDS: Final = {
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "device",
    stat.S_IFCHR: "device",
}

Enter = Callable[[Names], Awaitable[int]]
"""The inode of a folder that the caller may list; raises CiaosError."""
Rows = Callable[[int, int, int], list[tuple[int, bytes, int, int]]]
"""(inode of a folder, cookie, limit) -> (cookie, name, inode, mode) of the names after the cookie, in that order."""


class Listed(NamedTuple):
    """One key. `kind` is a word for what is no regular file, else empty."""

    key: str
    kind: str


@dataclass(slots=True)
class Page:
    """What one request gets: keys, and folders that could not be read, with why. `is_last`: nothing is left."""

    keys: list[Listed] = field(default_factory=list)
    denied: list[tuple[str, str]] = field(default_factory=list)
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """What to list: keys that begin with the names `folder` and a further name that begins with `beginning`, greater
    than `after`. `flat`: only names in that folder; folders among them end in a slash, and are not gone into."""

    folder: Names
    beginning: bytes
    after: bytes
    flat: bool


class Scan:
    """One look through a folder for the smallest names in `(after, ...)` that begin with `beginning`."""

    def __init__(self, ino: int, after: bytes, beginning: bytes, names_max: int) -> None:
        self._ino = ino
        self._after = after
        self._beginning = beginning
        self.names_max = names_max
        self._cookie = 0
        self._found: list[tuple[bytes, int]] = []
        self._bound: bytes | None = None
        self.has_more = False

    def step(self, rows: Rows) -> bool:
        """Look at up to ROWS names; False when there are no others."""
        found, after, beginning = self._found, self._after, self._beginning
        chunk = rows(self._ino, self._cookie, ROWS)
        for _, name, _, mode in chunk:
            key = name + b"/" if stat.S_ISDIR(mode) else name
            if key <= after or not name.startswith(beginning):
                continue
            if self._bound is not None and key > self._bound:
                self.has_more = True
                continue
            found.append((key, mode))
        if len(found) > 2 * self.names_max:
            self._shorten()
        if chunk:
            self._cookie = chunk[-1][0]
        return len(chunk) == ROWS

    def result(self) -> deque[tuple[bytes, int]]:
        """(name, mode) in order; a folder's name ends in a slash."""
        if len(self._found) > self.names_max:
            self._shorten()
        return deque(sorted(self._found))

    def _shorten(self) -> None:
        self._found = heapq.nsmallest(self.names_max, self._found)
        self._bound = self._found[-1][0]
        self.has_more = True


class Level:
    """A folder that is being listed: what is known to come next, and from where to look again."""

    def __init__(self, names: Names, ino: int, after: bytes, beginning: bytes) -> None:
        self.names = names
        self.ino = ino
        self.after = after
        self.beginning = beginning
        self.scan: Scan | None = None
        self.next: deque[tuple[bytes, int]] = deque()
        self.is_known = False
        """Whether `next` is all there is after `after`."""


class Shelf:
    """How much all listings keep: names, those that are being looked for counted as if they were found."""

    def __init__(self) -> None:
        self.names = 0
        self._listings = 0

    def enter(self) -> None:
        """Count one more listing. FsError ENFILE when there are too many."""
        if self._listings >= limits.OBJECT_LISTINGS_MAX:
            raise FsError(errno.ENFILE, "Too many listings are open: try again in a moment.")
        self._listings += 1

    def leave(self) -> None:
        self._listings -= 1

    def names_max(self, own: int) -> int:
        """How many names a listing that keeps `own` may look for."""
        room = min(limits.OBJECT_LISTED_NAMES_MAX - own, limits.OBJECT_LISTED_NAMES_ALL_MAX - self.names)
        return max(limits.OBJECT_LISTED_NAMES_MIN, room // 2)


class Listing(Kept):
    """One listing on its way. `page` goes on where the one before ended; `close` lets go of what is kept."""

    def __init__(self, question: Question, enter: Enter, rows: Rows, shelf: Shelf) -> None:
        self._question = question
        self._enter = enter
        self._rows = rows
        self._shelf = shelf
        self._levels: list[Level] = []
        self._kept = 0
        self._work = 0
        self._room = 0
        """Bytes that the page may still have."""
        self._is_begun = False
        self._is_closed = False
        shelf.enter()

    async def page(self, keys_max: int) -> Page:
        """Up to `keys_max` keys; fewer when it would be too long, or too much work at once. Raises what hides all of
        it."""
        page = Page()
        self._work = 0
        self._room = limits.OBJECT_LIST_BYTES_MAX
        if not self._is_begun:
            await self._begin(page)
        while self._levels and len(page.keys) < keys_max and self._room > 0:
            if self._work >= limits.OBJECT_LIST_WORK_MAX:
                return page
            level = self._levels[-1]
            if not level.next:
                if level.is_known:
                    self._levels.pop()
                else:
                    await self._look(level)
                continue
            name, mode = level.next.popleft()
            self._keep(-1)
            level.after = name
            if name.endswith(b"/") and not self._question.flat:
                await self._go_into(page, (*level.names, name[:-1]), b"", b"")
                continue
            key = show((*level.names, name))
            page.keys.append(Listed(key, KINDS.get(stat.S_IFMT(mode), "")))
            self._room -= _in_json(key)
        page.is_last = not self._levels
        return page

    async def close(self) -> None:
        """Let go of the names that are kept."""
        if not self._is_closed:
            self._is_closed = True
            self._levels.clear()
            self._keep(-self._kept)
            self._shelf.leave()

    async def _begin(self, page: Page) -> None:
        """Go into the folder of the question, and from there to where `after` points."""
        question = self._question
        ino = await self._enter(question.folder)
        self._is_begun = True
        above = b"/".join((*question.folder, b""))
        if question.after[: len(above)] > above:
            return
        after = question.after.removeprefix(above) if question.after.startswith(above) else b""
        self._levels.append(Level(question.folder, ino, after, question.beginning))
        if question.flat:
            return
        *folders, last = after.split(b"/")
        for name in folders:
            # The folder that `after` lies in: what comes before it in its own folder was listed, and it goes on inside.
            level = self._levels[-1]
            level.after = name + b"/"
            if not name.startswith(level.beginning) or not await self._go_into(
                page, (*level.names, name), b"", b"", is_there=False
            ):
                return
        self._levels[-1].after = last

    async def _go_into(
        self, page: Page, names: Names, after: bytes, beginning: bytes, *, is_there: bool = True
    ) -> bool:
        self._work += limits.OBJECT_LIST_FOLDER_WORK
        try:
            ino = await self._enter(names)
        except CiaosError as error:
            if is_there and not _has_gone(error):
                page.denied.append((show((*names, b"")), error.message))
                self._room -= _in_json(error.message) + _in_json(show(names))
            return False
        self._levels.append(Level(names, ino, after, beginning))
        return True

    async def _look(self, level: Level) -> None:
        """Go on looking through the folder until there is something to list, or enough work was done for one page."""
        if level.scan is None:
            self._make_room()
            names_max = self._shelf.names_max(self._kept)
            level.scan = Scan(level.ino, level.after, level.beginning, names_max)
            self._keep(2 * names_max)
        while level.scan.step(self._rows):
            self._work += ROWS
            await trio.lowlevel.checkpoint()
            if self._work >= limits.OBJECT_LIST_WORK_MAX:
                return
        self._work += ROWS // 8
        level.next = level.scan.result()
        level.is_known = not level.scan.has_more
        self._keep(len(level.next) - 2 * level.scan.names_max)
        level.scan = None

    def _make_room(self) -> None:
        """Where much is kept for folders further up, it is looked for again when it comes to that."""
        for level in self._levels:
            if self._kept <= limits.OBJECT_LISTED_NAMES_MAX - limits.OBJECT_LISTED_NAMES_MIN:
                return
            self._keep(-len(level.next))
            level.next.clear()
            level.is_known = False

    def _keep(self, count: int) -> None:
        self._kept += count
        self._shelf.names += count


def _in_json(text: str) -> int:
    """No more bytes than this: each that is no ASCII is written as six."""
    return 6 * len(text) + 8


def _has_gone(error: CiaosError) -> bool:
    """A folder that was removed, or replaced by a file, since its name was read."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR)
