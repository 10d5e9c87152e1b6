"""Listings are kept while nothing changes, read ahead, and bounded."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ciaosfs.base import limits
from ciaosfs.fs.listing import Listings
from ciaosfs.meta.inodes import ROOT_INO, Inode
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import add_directory, add_file, commit, make_inode

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


def test_a_listing_is_kept_until_anything_changes(meta: Metadata) -> None:
    listings = Listings(meta)
    first = add_file(meta, b"first")
    assert names(listings) == {b"first"}
    assert listings.after(ROOT_INO, 0, 100) is listings.after(ROOT_INO, 0, 100)
    add_file(meta, b"second")
    assert names(listings) == {b"first", b"second"}
    meta.inodes.set_size(first, 7)
    assert {row[8] for row in listings.after(ROOT_INO, 0, 100)} == {0, 7}
    meta.dentries.remove(ROOT_INO, b"first")
    assert names(listings) == {b"second"}
    commit(meta)
    assert names(listings) == {b"second"}


def test_folders_in_what_was_listed_are_read_ahead(meta: Metadata) -> None:
    inner = add_directory(meta, b"inner")
    innermost = add_directory(meta, b"innermost", inner)
    add_file(meta, b"leaf", parent=innermost)
    listings = Listings(meta)
    assert not listings.read_ahead(), "nothing was listed yet"
    names(listings)
    assert listings.read_ahead() and listings.read_ahead()
    assert not listings.read_ahead(), "there are two folders"
    before = sum(map(len, listings._parts.values()))
    assert names(listings, inner) == {b"innermost"} and names(listings, innermost) == {b"leaf"}
    assert sum(map(len, listings._parts.values())) == before == 3, "both were there already"


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
        assert sum(map(len, listings._parts.values())) <= 10
