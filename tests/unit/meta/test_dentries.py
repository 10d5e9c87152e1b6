"""Names, their cookies, and what happens when hashes collide."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ciaosfs.base.errors import FsError
from ciaosfs.meta.database import Database
from ciaosfs.meta.dentries import SLOTS
from ciaosfs.meta.inodes import ROOT_INO
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import add_directory, add_file, make_inode


@contextmanager
def hashed(path: Path, hash_name: Callable[[bytes, int], int]) -> Iterator[Metadata]:
    meta = Metadata(Database.create_fresh(path), hash_name)
    for ino in range(1, 40):
        meta.inodes.insert(make_inode(ino))
    yield meta
    meta.close()


def listing(meta: Metadata, parent: int = ROOT_INO, page: int = 100) -> list[tuple[int, bytes, int]]:
    entries: list[tuple[int, bytes, int]] = []
    cookie = 0
    while found := meta.dentries.list_after(parent, cookie, page):
        entries += [(at, name, ino) for at, name, ino, *_ in found]
        cookie = found[-1][0]
    return entries


def refused(code: int, call: Callable[..., object], *args: object) -> None:
    with pytest.raises(FsError) as caught:
        call(*args)
    assert caught.value.errno == code


def test_a_name_stands_for_its_inode_until_removed(meta: Metadata) -> None:
    ino = add_file(meta, b"name")
    assert meta.dentries.lookup(ROOT_INO, b"name") == ino
    assert meta.dentries.lookup_inode(ROOT_INO, b"name") == meta.inodes.load(ino)
    assert meta.dentries.lookup(ino, b"name") is None
    assert meta.dentries.lookup_inode(ROOT_INO, b"Name") is None
    refused(errno.EEXIST, meta.dentries.insert, ROOT_INO, b"name", 7)
    meta.dentries.repoint(ROOT_INO, b"name", ROOT_INO)
    assert meta.dentries.lookup(ROOT_INO, b"name") == ROOT_INO
    meta.dentries.remove(ROOT_INO, b"name")
    assert meta.dentries.lookup(ROOT_INO, b"name") is None
    refused(errno.ENOENT, meta.dentries.remove, ROOT_INO, b"name")
    refused(errno.ENOENT, meta.dentries.repoint, ROOT_INO, b"name", ino)


def test_any_bytes_are_a_name(meta: Metadata) -> None:
    names = [b"\xff\xfe", "\u00e4".encode(), b"a" * 255, b"%s", b"' --", b"\x01"]
    inos = {name: add_file(meta, name) for name in names}
    assert {name: ino for _, name, ino in listing(meta)} == inos


def test_sixteen_names_of_one_hash_live_side_by_side(tmp_path: Path) -> None:
    with hashed(tmp_path / "m", lambda name, seed: 1 << 20) as meta:
        names = [b"n%d" % number for number in range(SLOTS)]
        for ino, name in enumerate(names, 2):
            meta.dentries.insert(ROOT_INO, name, ino)
        refused(errno.ENOSPC, meta.dentries.insert, ROOT_INO, b"one more", 39)
        assert [meta.dentries.lookup(ROOT_INO, name) for name in names] == list(range(2, 2 + SLOTS))
        meta.dentries.insert(ROOT_INO + 1, b"one more", 39)
        cookies = [cookie for cookie, _, _ in listing(meta, page=3)]
        assert cookies == [(1 << 18) + slot for slot in range(SLOTS)]


def test_a_name_behind_a_freed_slot_is_not_made_twice(tmp_path: Path) -> None:
    with hashed(tmp_path / "m", lambda name, seed: 999 << 20) as meta:
        meta.dentries.insert(ROOT_INO, b"first", 2)
        meta.dentries.insert(ROOT_INO, b"second", 3)
        second = listing(meta)[1]
        meta.dentries.remove(ROOT_INO, b"first")
        refused(errno.EEXIST, meta.dentries.insert, ROOT_INO, b"second", 4)
        meta.dentries.insert(ROOT_INO, b"third", 4)
        assert listing(meta)[1] == second, "the cookie of a name changed while it existed"
        assert meta.dentries.lookup(ROOT_INO, b"second") == 3


@pytest.mark.parametrize("value", [0, 1, 63, (1 << 64) - 1])
def test_cookies_are_positive_and_leave_room(tmp_path: Path, value: int) -> None:
    """0 begins a listing and the kernel keeps some numbers for "." and ".."; 2**63 does not fit a signed
    offset.
    """
    with hashed(tmp_path / "m", lambda name, seed: value) as meta:
        for ino in range(2, 2 + SLOTS):
            meta.dentries.insert(ROOT_INO, b"%d" % ino, ino)
        assert all(16 <= cookie < 1 << 62 for cookie, _, _ in listing(meta))
        assert len(listing(meta, page=1)) == SLOTS


def test_the_order_depends_on_the_secret_of_the_store(tmp_path: Path) -> None:
    with hashed(tmp_path / "m", lambda name, seed: hash((name, seed)) % (1 << 64)) as meta:
        meta.dentries.seed = 5
        meta.dentries.insert(ROOT_INO, b"name", 2)
        before = listing(meta)
        meta.dentries.seed = 6
        assert meta.dentries.lookup(ROOT_INO, b"name") is None
        meta.dentries.insert(ROOT_INO + 1, b"name", 2)
        assert listing(meta, ROOT_INO + 1) != before


def test_a_listing_goes_on_where_it_was_while_names_come_and_go(meta: Metadata) -> None:
    for number in range(50):
        add_file(meta, b"stays%d" % number)
    for number in range(50):
        add_file(meta, b"goes%d" % number)
    seen: list[bytes] = []
    cookie = 0
    number = 0
    while found := meta.dentries.list_after(ROOT_INO, cookie, 7):
        seen += [row[1] for row in found]
        cookie = found[-1][0]
        for _ in range(4):
            if number < 50:
                meta.dentries.remove(ROOT_INO, b"goes%d" % number)
                add_file(meta, b"new%d" % number)
                number += 1
    assert len(seen) == len(set(seen))
    assert {name for name in seen if name.startswith(b"stays")} == {b"stays%d" % n for n in range(50)}


def test_a_directory_is_empty_until_it_has_a_name(meta: Metadata) -> None:
    directory = add_directory(meta, b"d")
    assert meta.dentries.is_empty(directory) and not meta.dentries.is_empty(ROOT_INO)
    add_file(meta, b"f", parent=directory)
    assert not meta.dentries.is_empty(directory)


def test_paths_follow_the_hint(meta: Metadata) -> None:
    outer = add_directory(meta, b"outer")
    inner = add_directory(meta, b"inner", outer)
    ino = add_file(meta, b"file", parent=inner)
    assert meta.dentries.path_of(ROOT_INO) == b"/"
    assert meta.dentries.path_of(ino) == b"/outer/inner/file"
    assert meta.inodes.ancestors(ino) == [inner, outer, ROOT_INO]
    meta.dentries.remove(inner, b"file")
    assert meta.dentries.path_of(ino) is None
    assert meta.dentries.path_of(4711) is None


def test_a_path_in_a_damaged_tree_ends(meta: Metadata) -> None:
    one, two = add_directory(meta, b"one"), add_directory(meta, b"two")
    for ino, parent in ((one, two), (two, one)):
        inode = meta.inodes.load(ino)
        assert inode is not None
        meta.inodes.update(inode._replace(parent=parent))
        meta.dentries.insert(parent, b"loop", ino)
    assert meta.dentries.path_of(one) is None
    assert len(meta.inodes.ancestors(one)) <= 8192


names = st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["insert", "remove", "repoint"]), names, st.integers(1, 9)), max_size=40
    )
)
def test_a_directory_is_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bytes, int]]
) -> None:
    """With only two hashes for all names, so that slots are taken and freed all the time."""
    path = tmp_path_factory.mktemp("d") / "m"
    with hashed(path, lambda name, seed: (name[0] % 2) << 40) as meta:
        model: dict[bytes, int] = {}
        for step, name, ino in steps:
            if step == "insert" and name in model:
                refused(errno.EEXIST, meta.dentries.insert, ROOT_INO, name, ino)
            elif step != "insert" and name not in model:
                call = meta.dentries.remove if step == "remove" else meta.dentries.repoint
                refused(
                    errno.ENOENT, call, *((ROOT_INO, name) if step == "remove" else (ROOT_INO, name, ino))
                )
            elif step == "remove":
                meta.dentries.remove(ROOT_INO, name)
                del model[name]
            else:
                getattr(meta.dentries, step)(ROOT_INO, name, ino)
                model[name] = ino
            assert {key: at for _, key, at in listing(meta, page=2)} == model
