"""Listings of a tree in memory, with tiny bounds, against sorting all of it."""

from __future__ import annotations

import errno
import random
import stat
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import trio_test

from ciaosfs.base import limits
from ciaosfs.base.errors import FsError
from ciaosfs.objects.keys import Names, parse_prefix
from ciaosfs.objects.listing import Listing, Question, Shelf

FOLDER, FILE, LINK = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777
MANY = 20_000


class Tree:
    """Folders by inode; each name has a cookie that never changes and says nothing of its order."""

    def __init__(self, keys: Iterator[str] | list[str] = []) -> None:  # noqa: B006 - never changed
        self.folders: dict[int, dict[bytes, tuple[int, int, int]]] = {1: {}}
        self.closed: set[Names] = set()
        self.looked_at = 0
        self._dice = random.Random(1)
        for key in keys:
            self.add(key)

    def add(self, key: str, mode: int = FILE) -> bool:
        """False when something is in the way."""
        ino = 1
        *names, last = key.encode().split(b"/")
        for name in names:
            _, ino, kind = self.folders[ino].setdefault(name, (self._cookie(), len(self.folders) + 1, FOLDER))
            if kind != FOLDER:
                return False
            self.folders.setdefault(ino, {})
        if last in self.folders[ino]:
            return False
        self.folders[ino][last] = self._cookie(), 0, mode
        return True

    def _cookie(self) -> int:
        return self._dice.randrange(16, 1 << 60)

    def rows(self, ino: int, cookie: int, limit: int) -> list[tuple[int, bytes, int, int]]:
        found = sorted(
            (at, name, ino, mode) for name, (at, ino, mode) in self.folders[ino].items() if at > cookie
        )
        self.looked_at += len(found[:limit])
        return found[:limit]

    async def enter(self, names: Names) -> int:
        if names in self.closed:
            raise FsError(errno.EACCES, "closed")
        ino = 1
        for name in names:
            if name not in self.folders[ino]:
                raise FsError(errno.ENOENT, "gone")
            _, ino, mode = self.folders[ino][name]
            if mode != FOLDER:
                raise FsError(errno.ENOTDIR, "a file")
        return ino

    def listing(
        self, prefix: str = "", after: str = "", *, flat: bool = False, shelf: Shelf | None = None
    ) -> Listing:
        folder, beginning = parse_prefix(prefix)
        question = Question(folder, beginning, after.encode(), flat)
        return Listing(question, self.enter, self.rows, shelf or Shelf())


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OBJECT_LISTED_NAMES_MIN", 3)
    monkeypatch.setattr(limits, "OBJECT_LISTED_NAMES_MAX", 12)
    monkeypatch.setattr(limits, "OBJECT_LIST_WORK_MAX", 300)


async def all_of(listing: Listing, keys_max: int = 7) -> list[str]:
    keys: list[str] = []
    while True:
        page = await listing.page(keys_max)
        assert len(page.keys) <= keys_max
        keys += [listed.key for listed in page.keys]
        if page.is_last:
            await listing.close()
            return keys


NAMES = st.text(alphabet="ab-./0", min_size=1, max_size=7).filter(
    lambda text: all(name not in ("", ".", "..") for name in text.split("/"))
)


@given(st.sets(NAMES, max_size=40), NAMES, NAMES, st.integers(1, 50))
@settings(max_examples=150, deadline=None)
def test_pages_together_are_all_keys_in_order(keys: set[str], prefix: str, after: str, keys_max: int) -> None:
    tree = Tree()
    there = [key for key in sorted(keys) if tree.add(key)]
    there = [key for key in there if not any(other.startswith(key + "/") for other in there)]

    @trio_test
    async def look() -> None:
        assert await all_of(tree.listing(), keys_max) == sorted(there)
        assert await all_of(tree.listing(after=after), keys_max) == [
            key for key in sorted(there) if key > after
        ]
        try:
            found = await all_of(tree.listing(prefix), keys_max)
        except FsError:
            found = []
        assert found == [key for key in sorted(there) if key.startswith(prefix)]
        flat = {key.split("/")[0] + ("/" if "/" in key else "") for key in there}
        assert await all_of(tree.listing(flat=True), keys_max) == sorted(flat)

    look()


@trio_test
async def test_names_that_are_there_all_the_while_are_listed_once_while_others_come_and_go() -> None:
    steady = {f"d{number % 7}/steady{number:05}" for number in range(MANY // 50)}
    tree = Tree(sorted(steady))
    dice = random.Random(5)
    listing = tree.listing()
    found: list[str] = []
    while True:
        page = await listing.page(11)
        found += [listed.key for listed in page.keys]
        if page.is_last:
            break
        for _ in range(5):
            tree.add(f"d{dice.randrange(7)}/coming{dice.randrange(10**6)}")
            folder = tree.folders[dice.randrange(2, 9)]
            for name in [name for name in folder if name.startswith(b"coming")][:2]:
                del folder[name]
    assert found == sorted(found)
    assert [key for key in found if "steady" in key] == sorted(steady)


@trio_test
async def test_a_huge_folder_costs_bounded_memory_and_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OBJECT_LISTED_NAMES_MAX", 8192)
    monkeypatch.setattr(limits, "OBJECT_LIST_WORK_MAX", 5_000)
    tree = Tree([f"name{number:06}" for number in range(2_000)])
    shelf = Shelf()
    listing = tree.listing(shelf=shelf)
    count, most = 0, 0
    while True:
        tree.looked_at = 0
        page = await listing.page(500)
        most = max(most, tree.looked_at)
        assert shelf.names <= 2 * 8192
        count += len(page.keys)
        if page.is_last:
            break
    await listing.close()
    assert (count, shelf.names) == (2_000, 0)
    assert most <= 5_000 + 256


@trio_test
async def test_what_may_not_be_read_is_told_and_hides_nothing_else() -> None:
    tree = Tree(["a/1", "b/2", "c/3"])
    tree.add("link", LINK)
    tree.closed.add((b"b",))
    page = await tree.listing().page(100)
    assert [listed.key for listed in page.keys] == ["a/1", "c/3", "link"]
    assert page.keys[-1].kind == "symlink"
    assert page.denied == [("b/", "closed")]
    assert page.is_last
    with pytest.raises(FsError):
        await tree.listing("b/").page(100)


@trio_test
async def test_too_many_listings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OBJECT_LISTINGS_MAX", 2)
    tree, shelf = Tree(["a"]), Shelf()
    first = tree.listing(shelf=shelf)
    tree.listing(shelf=shelf)
    with pytest.raises(FsError, match="Too many listings"):
        tree.listing(shelf=shelf)
    await first.close()
    await first.close()
    tree.listing(shelf=shelf)
