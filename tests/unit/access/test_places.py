"""Places are what a walk through the whole tree says, whatever was moved, linked and removed, and kept within bounds."""

from __future__ import annotations

import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ciaosfs.access.places import Places, Prefix
from ciaosfs.access.policy import Place
from ciaosfs.base import limits
from ciaosfs.base.errors import FsError
from ciaosfs.fs import namespace
from ciaosfs.fs.requester import ROOT
from ciaosfs.meta.inodes import ROOT_INO, Inode
from ciaosfs.meta.metadata import Metadata

PREFIXES: tuple[Prefix, ...] = ((), (b"a",), (b"b",), (b"a", b"b"), (b"a", b"b", b"c"), (b"f",))


@pytest.fixture
def meta(tmp_path: Path) -> Iterator[Metadata]:
    meta = Metadata.create_fresh(tmp_path / "meta.sqlite", bytes(16))
    namespace.create_root(meta, ROOT)
    yield meta
    meta.close()


@pytest.fixture
def places(meta: Metadata) -> Places:
    return Places(meta.inodes, meta.dentries)


def make(meta: Metadata, parent: int, name: bytes, kind: int = stat.S_IFDIR) -> int:
    return namespace.create(meta, parent, name, kind | 0o755, ROOT).ino


def names_in(meta: Metadata, ino: int) -> list[tuple[bytes, int]]:
    return [(row[1], row[2]) for row in meta.dentries.list_after(ino, 0, 10_000)]


def walk(meta: Metadata, prefix: Prefix) -> dict[int, Place]:
    """Every inode that has a name, placed by going down."""
    found: dict[int, Place] = {}

    def go(ino: int, depth: int, inside: bool, above: bool) -> None:
        inside = inside or (above and depth == len(prefix))
        found[ino] = Place.INSIDE if inside else Place.ABOVE if above else Place.OUTSIDE
        for name, child in names_in(meta, ino):
            inode = meta.inodes.load(child)
            assert inode is not None
            if stat.S_ISDIR(inode.mode):
                leads = above and not inside and name == prefix[depth]
                go(child, depth + 1, inside, leads)
            else:
                place = Place.INSIDE if inside else Place.OUTSIDE
                found[child] = max(place, found.get(child, Place.OUTSIDE))

    go(ROOT_INO, 0, False, True)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_places_follow_whatever_happens(meta: Metadata, places: Places, seed: int) -> None:
    dice = random.Random(seed)
    directories, files = [ROOT_INO], []

    def change() -> None:
        parent, name = dice.choice(directories), dice.choice((b"a", b"b", b"c", b"f"))
        match dice.randrange(7):
            case 0 | 1:
                directories.append(make(meta, parent, name))
            case 2:
                files.append(make(meta, parent, name, stat.S_IFREG))
            case 3 if files:
                namespace.link(meta, dice.choice(files), parent, name)
            case 4:
                namespace.unlink(meta, parent, name)
            case 5:
                namespace.rmdir(meta, parent, name)
            case _:
                target, new_name = dice.choice(directories), dice.choice((b"a", b"b", b"f"))
                moved = meta.dentries.lookup(parent, name)
                assert moved not in {target, *meta.inodes.ancestors(target)}  # the kernel refuses this
                namespace.rename(meta, parent, name, target, new_name, dice.choice((0, 0, 1, 2)))

    for _ in range(250):
        try:
            change()
        except (FsError, AssertionError):
            continue
        for prefix in PREFIXES:
            expected = walk(meta, prefix)
            look_up_everything(meta, places, prefix, expected)
            for ino, place in expected.items():
                assert places.of(prefix, ino) is place, (prefix, ino)
                parent = loaded(meta, ino).parent
                assert stat.S_ISDIR(loaded(meta, ino).mode) or not parent or has_name_of(meta, parent, ino)


def look_up_everything(meta: Metadata, places: Places, prefix: Prefix, placed: dict[int, Place]) -> None:
    """As the kernel does before anything is done with a name."""
    for ino, place in placed.items():
        if place is Place.INSIDE and stat.S_ISDIR(loaded(meta, ino).mode):
            for name, child in names_in(meta, ino):
                places.learn(prefix, ino, name, loaded(meta, child))


def loaded(meta: Metadata, ino: int) -> Inode:
    inode = meta.inodes.load(ino)
    assert inode is not None
    return inode


def has_name_of(meta: Metadata, parent: int, ino: int) -> bool:
    return any(child == ino for _, child in names_in(meta, parent))


def test_only_the_name_that_leads_on_is_told(meta: Metadata, places: Places) -> None:
    outer = make(meta, ROOT_INO, b"a")
    prefix = (b"a", b"b")
    assert places.way_on(prefix, ROOT_INO) == b"a"
    assert places.way_on(prefix, outer) == b"b"
    assert places.of(prefix, outer) is Place.ABOVE
    inner = make(meta, outer, b"b")
    assert places.of(prefix, inner) is Place.INSIDE
    assert places.way_on(prefix, inner) is None


def test_a_name_that_was_learned_is_no_longer_believed_when_it_is_gone(
    meta: Metadata, places: Places
) -> None:
    inside, outside = make(meta, ROOT_INO, b"a"), make(meta, ROOT_INO, b"z")
    file = make(meta, outside, b"file", stat.S_IFREG)
    namespace.link(meta, file, inside, b"mine")
    assert places.of((b"a",), file) is Place.OUTSIDE  # nobody looked there
    places.learn((b"a",), inside, b"mine", loaded(meta, file))
    assert places.of((b"a",), file) is Place.INSIDE
    namespace.unlink(meta, inside, b"mine")
    assert places.of((b"a",), file) is Place.OUTSIDE
    namespace.create(meta, inside, b"mine", stat.S_IFREG | 0o644, ROOT)
    assert places.of((b"a",), file) is Place.OUTSIDE


def test_a_file_without_names_is_where_its_last_name_was(meta: Metadata, places: Places) -> None:
    inside = make(meta, ROOT_INO, b"a")
    file = make(meta, inside, b"file", stat.S_IFREG)
    namespace.unlink(meta, inside, b"file")
    assert places.of((b"a",), file) is Place.INSIDE


def test_what_is_kept_is_bounded(meta: Metadata, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KNOWN_PLACES_MAX", 20)
    monkeypatch.setattr(limits, "LEARNED_NAMES_MAX", 20)
    directories = [make(meta, ROOT_INO, b"%d" % number) for number in range(50)]
    file = make(meta, ROOT_INO, b"file", stat.S_IFREG)
    for number, directory in enumerate(directories):
        prefix = (b"%d" % number,)
        for other in directories:
            assert places.of(prefix, other) is (Place.INSIDE if other == directory else Place.OUTSIDE)
        places.learn(prefix, directory, b"file", loaded(meta, file))
    assert sum(len(area.known) for area in places._areas.values()) <= 20 + len(directories)
    assert len(places._learned) == 20
