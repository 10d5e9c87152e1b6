"""Rows of inodes: what each statement changes and what it leaves alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ciaosfs.meta.counters import Counter
from ciaosfs.meta.inodes import FLAG_XATTRS, ROOT_INO, Inode
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import add_file, commit, fresh, make_inode, make_stripe, raw, set_size


def loaded(meta: Metadata, ino: int) -> Inode:
    inode = meta.inodes.load(ino)
    assert inode is not None
    return inode


def test_fields_are_in_the_order_of_the_columns(meta: Metadata) -> None:
    with meta.reader() as reader:
        columns = [row[1] for row in reader.rows("PRAGMA table_info(inodes)")]
    assert tuple(columns) == Inode._fields


def test_what_is_inserted_is_loaded(meta: Metadata) -> None:
    inode = Inode(7, stat.S_IFLNK | 0o777, 1, 2, 3, 4, 5, -6, 7, 8, 9, 10, 11, 0, b"\xfftarget")
    meta.inodes.insert(inode)
    assert loaded(meta, 7) == inode
    assert type(loaded(meta, 7)) is Inode
    assert meta.inodes.size(7) == 5
    assert meta.inodes.load(8) is None and meta.inodes.size(8) is None


def test_update_leaves_the_allocated_bytes_to_the_extents(meta: Metadata) -> None:
    ino = add_file(meta, b"f")
    stale = loaded(meta, ino)
    meta.stripes.insert(make_stripe(1))
    meta.extents.replace(ino, 0, 10, [raw(0, 10, 1)])
    changed = stale._replace(
        mode=stat.S_IFREG,
        nlink=3,
        uid=4,
        gid=5,
        size=6,
        atime_ns=7,
        mtime_ns=8,
        ctime_ns=9,
        parent=10,
        flags=11,
    )
    meta.inodes.update(changed)
    assert loaded(meta, ino) == changed._replace(allocated=10)


def test_targeted_updates_change_what_they_name(meta: Metadata) -> None:
    before = make_inode(50, size=1, atime_ns=2, mtime_ns=3, ctime_ns=4)
    meta.inodes.insert(before)
    set_size(meta, 50, 10)
    assert loaded(meta, 50) == before._replace(size=10)
    assert meta.inodes.grow(50, 20) and meta.inodes.grow(50, 15) and not meta.inodes.grow(51, 15)
    assert loaded(meta, 50) == before._replace(size=20)
    timed = meta.inodes.set_times(50, None, 21, 22)
    assert timed == loaded(meta, 50) == before._replace(size=20, mtime_ns=21, ctime_ns=22)
    timed = meta.inodes.set_times(50, 23, None, 24)
    assert timed == loaded(meta, 50) == before._replace(size=20, atime_ns=23, mtime_ns=21, ctime_ns=24)
    assert meta.inodes.set_times(51, 1, 2, 3) is None
    meta.inodes.touch(50, 31, 32)
    assert loaded(meta, 50) == before._replace(size=20, atime_ns=23, mtime_ns=31, ctime_ns=32)
    meta.inodes.touch(50, 41, 42, -1)
    assert loaded(meta, 50) == before._replace(size=20, atime_ns=23, mtime_ns=41, ctime_ns=42, nlink=0)
    assert meta.inodes.orphans() == [50]


def test_orphans_come_lowest_first_and_bounded(meta: Metadata) -> None:
    for ino in (60, 40, 50):
        meta.inodes.insert(make_inode(ino, nlink=0))
    assert meta.inodes.orphans() == [40, 50, 60]
    assert meta.inodes.orphans(2) == [40, 50]


def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    meta = fresh(tmp_path / "m")
    first = meta.inodes.take_ino()
    assert first > ROOT_INO
    ino = add_file(meta, b"f")
    commit(meta)
    meta.inodes.delete(ino)
    commit(meta)
    meta.close()
    again = Metadata.open(tmp_path / "m")
    assert again.inodes.take_ino() > ino
    again.close()


@pytest.mark.parametrize(
    ("kind", "counter"),
    [
        (stat.S_IFREG, Counter.FILES),
        (stat.S_IFDIR, Counter.DIRECTORIES),
        (stat.S_IFLNK, Counter.OTHERS),
        (stat.S_IFCHR, Counter.OTHERS),
        (stat.S_IFIFO, Counter.OTHERS),
    ],
)
def test_each_kind_is_counted(meta: Metadata, kind: int, counter: Counter) -> None:
    before, count = meta.counters.values[counter], meta.inodes.count()
    meta.inodes.insert(make_inode(70, kind))
    assert (meta.counters.values[counter], meta.inodes.count()) == (before + 1, count + 1)
    meta.inodes.delete(70)
    meta.inodes.delete(70)
    assert (meta.counters.values[counter], meta.inodes.count()) == (before, count)


def test_xattrs_go_with_their_inode(meta: Metadata) -> None:
    meta.inodes.insert(make_inode(70, flags=FLAG_XATTRS))
    meta.xattrs.set(70, b"user.a", b"1")
    meta.inodes.delete(70)
    assert meta.xattrs.names(70) == []


def test_deleting_with_extents_left_is_our_bug(meta: Metadata) -> None:
    ino = add_file(meta, b"f")
    meta.stripes.insert(make_stripe(1))
    meta.extents.replace(ino, 0, 10, [raw(0, 10, 1)])
    with pytest.raises(AssertionError):
        meta.inodes.delete(ino)


def test_counters_survive_and_follow_a_rollback(meta: Metadata) -> None:
    add_file(meta, b"f")
    commit(meta)
    files = meta.counters.values[Counter.FILES]
    add_file(meta, b"g")
    assert meta.counters.values[Counter.FILES] == files + 1
    meta.rollback()
    assert meta.counters.values[Counter.FILES] == files
    assert meta.dentries.lookup(ROOT_INO, b"g") is None
