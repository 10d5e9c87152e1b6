"""Listings are kept while the tree does not change, read ahead, and bounded."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ciaosfs.base import limits
from ciaosfs.fs.listing import GROWN_FETCHES_MAX, Listings
from ciaosfs.meta.inodes import ROOT_INO, Inode
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import add_directory, add_file, commit, make_inode, make_stripe, raw, set_size

STORE = bytes(range(16))


@pytest.fixture
def meta(tmp_path: Path) -> Iterator[Metadata]:
    meta = Metadata.create_fresh(tmp_path / "meta.sqlite", STORE)
    meta.inodes.insert(make_root())
    yield meta
    meta.close()


def make_root() -> Inode:
    return make_inode(ROOT_INO, stat.S_IFDIR | 0o755, 2, parent=ROOT_INO)


def names(listings: Listings, ino: int = ROOT_INO) -> set[bytes]:
    return {row[1] for row in listings.after(ino, 0, 100)}


def kept(listings: Listings) -> int:
    return sum(len(rows) for rows, _ in listings._parts.values())


def test_a_listing_is_kept_until_the_tree_changes(meta: Metadata) -> None:
    listings = Listings(meta)
    first = add_file(meta, b"first")
    assert names(listings) == {b"first"}
    assert listings.after(ROOT_INO, 0, 100) is listings.after(ROOT_INO, 0, 100)
    add_file(meta, b"second")
    assert names(listings) == {b"first", b"second"}
    set_size(meta, first, 7)
    assert {row[8] for row in listings.after(ROOT_INO, 0, 100)} == {0, 7}
    meta.dentries.remove(ROOT_INO, b"first")
    assert names(listings) == {b"second"}
    rows = listings.after(ROOT_INO, 0, 100)
    commit(meta)
    meta.stripes.insert(make_stripe(9))
    assert listings.after(ROOT_INO, 0, 100) is rows, "neither a commit nor a stripe is of the tree"
    assert listings.after(ROOT_INO, 0, 20) is rows, "it is all that there is"
    assert listings.after(ROOT_INO, rows[-1][0], 100) == () and listings.misses == 4, "nor is there any more"


def test_whatever_changes_inodes_or_names_is_counted(tmp_path: Path) -> None:
    """Who forgets to count shows old listings; who counts too much never shows one twice."""
    meta = Metadata.create_fresh(tmp_path / "meta.sqlite", STORE)
    read = meta.database.executor()
    seen: set[bool] = set()

    def tree() -> list[object]:
        return [*read("SELECT * FROM inodes").fetchall(), *read("SELECT * FROM dentries").fetchall()]

    def check(change: Callable[[], object]) -> None:
        before, count = tree(), meta.database.tree_changes
        change()
        is_changed = tree() != before
        assert is_changed == (meta.database.tree_changes != count)
        seen.add(is_changed)

    file = make_inode(7, stat.S_IFREG | 0o644, 1, parent=ROOT_INO)
    check(lambda: meta.inodes.insert(make_root()))
    check(lambda: meta.inodes.insert(file))
    check(lambda: meta.dentries.insert(ROOT_INO, b"name", 7))
    check(lambda: meta.dentries.repoint(ROOT_INO, b"name", 8))
    check(lambda: meta.inodes.update(file._replace(uid=77)))
    check(lambda: set_size(meta, 7, 100))
    check(lambda: meta.inodes.grow(7, 50))
    check(lambda: meta.inodes.grow(7, 200))
    check(lambda: meta.inodes.set_times(7, None, 1, 2))
    check(lambda: meta.inodes.touch(ROOT_INO, 1, 2))
    check(lambda: meta.inodes.touch(ROOT_INO, 3, 4, links=1))
    check(lambda: meta.stripes.insert(make_stripe(3)))
    check(lambda: meta.stripes.insert(make_stripe(4)))
    check(lambda: meta.extents.replace(7, 0, 100, [raw(0, 100, 3)]))
    check(lambda: meta.extents.replace(7, 0, 100, [raw(0, 100, 4)]))
    check(lambda: meta.extents.replace(7, 0, 100, []))
    check(lambda: meta.dentries.remove(ROOT_INO, b"name"))
    check(lambda: meta.inodes.delete(7))
    check(lambda: commit(meta))
    assert seen == {False, True}
    meta.close()


def test_folders_that_were_given_names_are_read_when_it_is_quiet(
    meta: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings = Listings(meta)
    folder = add_directory(meta, b"folder")
    add_file(meta, b"leaf", parent=folder)
    assert listings.read_grown() is None, "nothing was told"
    listings.note_grown(folder)
    grown = listings.read_grown()
    assert grown is not None and grown[0] == folder and {row[1] for row in grown[1]} == {b"leaf"}
    assert listings.read_grown() is None
    set_size(meta, folder, 0)
    assert listings.read_grown() is not None, "it was for nothing"
    assert listings.after(folder, 0, 32) and listings.misses == 0
    set_size(meta, folder, 0)
    assert listings.read_grown() is None, "it was listed"
    listings.note_grown(folder)
    fetches = 0
    while listings.read_grown() is not None:
        set_size(meta, folder, 0)
        fetches += 1
    assert fetches == GROWN_FETCHES_MAX
    monkeypatch.setattr(limits, "LISTINGS_AHEAD_MAX", 3)
    for ino in range(10):
        listings.note_grown(ino)
    assert list(listings._grown) == [7, 8, 9]


def test_folders_in_what_was_listed_are_read_ahead(meta: Metadata) -> None:
    inner = add_directory(meta, b"inner")
    innermost = add_directory(meta, b"innermost", inner)
    add_file(meta, b"leaf", parent=innermost)
    listings = Listings(meta)
    assert not listings.read_ahead(), "nothing was listed yet"
    names(listings)
    assert listings.read_ahead() and listings.read_ahead()
    assert not listings.read_ahead(), "there are two folders"
    before = kept(listings)
    assert names(listings, inner) == {b"innermost"} and names(listings, innermost) == {b"leaf"}
    assert kept(listings) == before == 3, "both were there already"


def test_the_walk_is_read_ahead_of_in_its_own_direction(meta: Metadata) -> None:
    for number in range(5):
        add_directory(meta, b"%d" % number)
    listings = Listings(meta)
    folders = [row[2] for row in listings.after(ROOT_INO, 0, 100)]
    listings.after(folders[4], 0, 100)
    for following in (folders[3], folders[2]):
        ahead = listings.read_ahead()
        assert ahead is not None and ahead[0] == following
    misses = listings.misses
    listings.after(folders[3], 0, 100)
    assert listings.misses == misses


def test_a_folder_noted_and_then_removed_does_no_harm(meta: Metadata) -> None:
    add_directory(meta, b"gone")
    listings = Listings(meta)
    names(listings)
    meta.dentries.remove(ROOT_INO, b"gone")
    listings.read_ahead()
    assert names(listings) == set()


def test_what_is_kept_is_bounded(meta: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LISTED_ROWS_CACHE_MAX", 10)
    for number in range(8):
        add_file(meta, b"%d" % number)
        folder = add_directory(meta, b"folder%d" % number)
        add_file(meta, b"in", parent=folder)
    listings = Listings(meta)
    for _ in range(3):
        assert len(names(listings)) == 16
        while listings.read_ahead() is not None:
            pass
        assert kept(listings) <= 10
