"""Extents against a plain array of bytes, and the sums that go with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciaosfs.base.types import Codec, Extent
from ciaosfs.meta.extents import Extents
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import add_file, complaints, make_stripe, raw, zstd

EVERYTHING = (1 << 62) * 2
FILE_BYTES = 64


def stored(meta: Metadata, ino: int) -> list[Extent]:
    return meta.extents.overlapping(ino, 0, EVERYTHING)


@pytest.fixture
def ino(meta: Metadata) -> int:
    for stripe_id in (1, 2, 3):
        meta.stripes.insert(make_stripe(stripe_id))
    return add_file(meta, b"file", size=4096)


def test_overlapping_touches_the_range_only(meta: Metadata, ino: int) -> None:
    pieces = [raw(0, 10, 1), raw(10, 10, 2), raw(30, 10, 3)]
    meta.extents.replace(ino, 0, 40, pieces)
    assert meta.extents.overlapping(ino, 0, 10) == pieces[:1]
    assert meta.extents.overlapping(ino, 9, 11) == pieces[:2]
    assert meta.extents.overlapping(ino, 20, 30) == []
    assert meta.extents.overlapping(ino, 15, 31) == pieces[1:]
    assert meta.extents.overlapping(ino, 40, EVERYTHING) == []
    assert meta.extents.overlapping(ino, 5, 5) == []
    assert meta.extents.overlapping(ino + 1, 0, EVERYTHING) == []


def test_first_extents_are_what_replace_makes_of_them(meta: Metadata, ino: int, tmp_path: Path) -> None:
    given = {b"a": [raw(0, 10, 0)], b"b": [zstd(5, 20, 0), raw(25, 3, 0, 40)], b"c": [raw(100, 7, 0, 50)]}
    other = Metadata.create_fresh(tmp_path / "other", bytes(16))
    try:
        inos = {}
        for each in (meta, other):
            if each is other:
                add_file(each, b"file", size=4096)
                each.stripes.insert(make_stripe(2))
            inos[each] = [add_file(each, name, size=4096) for name in given]
        assert inos[meta] == inos[other]
        files = list(zip(inos[meta], given.values(), strict=True))
        tree_changes = meta.database.tree_changes
        meta.extents.add_first(2, files)
        assert meta.database.tree_changes != tree_changes
        for number, extents in files:
            new = [extent._replace(stripe_id=2) for extent in extents]
            other.extents.replace(number, 0, EVERYTHING, new)
            assert stored(meta, number) == stored(other, number) == new
            assert meta.inodes.load(number) == other.inodes.load(number)
        assert meta.stripes.live_bytes(2) == other.stripes.live_bytes(2) == 40
        assert meta.statistics().allocated_bytes == other.statistics().allocated_bytes == 40
    finally:
        other.close()


def test_replace_keeps_what_reaches_out(meta: Metadata, ino: int) -> None:
    assert meta.extents.replace(ino, 0, 100, [raw(0, 100, 1)]) == 100
    assert meta.extents.replace(ino, 40, 60, [zstd(40, 20, 2)]) == 0
    assert stored(meta, ino) == [raw(0, 40, 1), zstd(40, 20, 2), raw(60, 40, 1, 60)]
    assert (meta.stripes.live_bytes(1), meta.stripes.live_bytes(2)) == (80, 20)


def test_replace_with_nothing_makes_a_hole(meta: Metadata, ino: int) -> None:
    meta.extents.replace(ino, 0, 100, [zstd(0, 100, 1, 0, 30)])
    assert meta.extents.replace(ino, 10, 90, []) == -80
    assert stored(meta, ino) == [zstd(0, 10, 1, 0, 30), zstd(90, 10, 1, 0, 30, 90)]
    assert meta.extents.replace(ino, 5, EVERYTHING, []) == -15
    assert stored(meta, ino) == [zstd(0, 5, 1, 0, 30)]
    inode = meta.inodes.load(ino)
    assert inode is not None and inode.allocated == 5


def test_appends_to_one_stripe_become_one_extent(meta: Metadata, ino: int) -> None:
    for at in range(0, 50, 10):
        assert meta.extents.replace(ino, at, at + 10, [raw(at, 10, 1, at)]) == 10
    assert stored(meta, ino) == [raw(0, 50, 1)]


def test_pieces_of_one_write_are_joined(meta: Metadata, ino: int) -> None:
    meta.extents.replace(ino, 0, 30, [raw(0, 10, 1), raw(10, 10, 1, 10), raw(20, 10, 2)])
    assert stored(meta, ino) == [raw(0, 20, 1), raw(20, 10, 2)]


def test_a_part_that_returns_to_its_place_is_joined_with_the_rest(meta: Metadata, ino: int) -> None:
    meta.extents.replace(ino, 0, 30, [raw(0, 30, 1)])
    meta.extents.replace(ino, 10, 20, [raw(10, 10, 1, 10)])
    assert stored(meta, ino) == [raw(0, 20, 1), raw(20, 10, 1, 20)]
    assert meta.stripes.live_bytes(1) == 30


def test_an_empty_range_changes_nothing(meta: Metadata, ino: int) -> None:
    meta.extents.replace(ino, 0, 30, [raw(0, 30, 1)])
    assert meta.extents.replace(ino, 10, 10, []) == 0
    assert stored(meta, ino) == [raw(0, 30, 1)]


def test_new_extents_outside_the_range_are_our_bug(meta: Metadata, ino: int) -> None:
    with pytest.raises(AssertionError):
        meta.extents.replace(ino, 0, 10, [raw(5, 10, 1)])
    with pytest.raises(AssertionError):
        meta.extents.replace(ino, 0, 30, [raw(5, 10, 1), raw(10, 10, 2)])


def test_purging_goes_in_slices(meta: Metadata, ino: int) -> None:
    meta.extents.replace(ino, 0, 500, [raw(at, 10, 1, at * 2) for at in range(0, 500, 10)])
    steps = 1
    while not meta.extents.purge_step(ino, 20):
        steps += 1
    assert steps == 3 and stored(meta, ino) == []
    assert meta.stripes.live_bytes(1) == 0
    meta.inodes.delete(ino)
    meta.dentries.remove(1, b"file")
    assert complaints(meta) == []


def test_trimming_leaves_what_begins_before_the_size(meta: Metadata, ino: int) -> None:
    meta.extents.replace(ino, 0, 100, [raw(at, 10, 1, at * 2) for at in range(0, 100, 10)])
    assert not meta.extents.trim_step(ino, 45, 3)
    assert stored(meta, ino)[-1].offset == 60
    assert meta.extents.trim_step(ino, 45, 3)
    assert stored(meta, ino)[-1] == raw(40, 10, 1, 80)


def test_counting_stops_where_it_is_enough(meta: Metadata, ino: int) -> None:
    meta.extents.replace(ino, 0, 100, [raw(at, 10, 1, at * 2) for at in range(0, 100, 10)])
    assert meta.extents.has_more_than(9, ino, 0, 1 << 63)
    assert not meta.extents.has_more_than(10, ino, 0, 1 << 63)
    assert meta.extents.has_more_than(2, ino, 55, 90), "those that begin in the range"
    assert not meta.extents.has_more_than(3, ino, 55, 90)
    assert not meta.extents.has_more_than(0, ino, 50, 50)


def test_extents_of_a_stripe_come_in_pages(meta: Metadata, ino: int) -> None:
    other = add_file(meta, b"other", size=100)
    meta.extents.replace(ino, 0, 30, [raw(0, 10, 1), raw(20, 10, 1, 40)])
    meta.extents.replace(other, 5, 10, [raw(5, 5, 1, 90)])
    first = meta.extents.of_stripe(1, (0, 0), 2)
    assert first == [(ino, raw(0, 10, 1)), (ino, raw(20, 10, 1, 40))]
    last_ino, last = first[-1]
    assert meta.extents.of_stripe(1, (last_ino, last.offset), 2) == [(other, raw(5, 5, 1, 90))]


@pytest.mark.parametrize(
    ("given_extents", "statements"),
    [
        pytest.param([], {"SELECT": 1, "INSERT": 1, "UPDATE": 1}, id="nothing there"),
        pytest.param([raw(0, 4096, 2)], {"SELECT": 1, "DELETE": 1, "INSERT": 1}, id="rewritten"),
    ],
)
def test_a_replace_is_few_statements(
    meta: Metadata, ino: int, given_extents: list[Extent], statements: dict[str, int]
) -> None:
    meta.extents.replace(ino, 0, 4096, given_extents)
    counted: dict[str, int] = {}
    extents = meta.extents

    def counting(execute: Callable[..., Any]) -> Callable[..., Any]:
        def run(statement: str, bindings: object = None) -> object:
            word = statement.split()[0]
            counted[word] = counted.get(word, 0) + 1
            return execute(statement, bindings)

        return run

    for attribute in ("_read", "_write", "_allocate"):
        setattr(extents, attribute, counting(getattr(extents, attribute)))
    extents.replace(ino, 0, 4096, [raw(0, 4096, 1)])
    assert counted == statements


writes = st.tuples(
    st.integers(0, FILE_BYTES - 1),
    st.integers(1, FILE_BYTES),
    st.lists(st.tuples(st.sampled_from([Codec.RAW, Codec.ZSTD, None]), st.integers(1, 12)), max_size=4),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(writes, min_size=1, max_size=12))
def test_extents_are_an_array_of_bytes(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, Any]]
) -> None:
    """Each change writes fresh bytes from a stripe of its own; the file is compared byte by byte."""
    meta = shared_database(tmp_path_factory.getbasetemp() / "extents.sqlite")
    ino = add_file(meta, b"%d" % meta.inodes.count(), size=FILE_BYTES)
    first_stripe = meta.stripes.highest_id() + 1
    model: list[tuple[int, int] | None] = [None] * FILE_BYTES
    for stripe_id, (start, length, pieces) in enumerate(changes, first_stripe):
        end = min(start + length, FILE_BYTES)
        meta.stripes.insert(make_stripe(stripe_id))
        new: list[Extent] = []
        model[start:end] = [None] * (end - start)
        at, place = start, 0
        for codec, size in pieces:
            size = min(size, end - at)
            if size <= 0:
                break
            if codec is not None:
                new.append(
                    raw(at, size, stripe_id, place)
                    if codec == Codec.RAW
                    else zstd(at, size, stripe_id, place)
                )
                model[at : at + size] = [(stripe_id, place + index) for index in range(size)]
            at += size
            place += size
        before = sum(byte is not None for byte in model)
        allocated = meta.inodes.load(ino)
        assert allocated is not None
        change = meta.extents.replace(ino, start, end, new)
        assert allocated.allocated + change == before
        check_against(meta.extents, ino, model)
    for stripe_id in range(first_stripe, first_stripe + len(changes)):
        expected = sum(byte is not None and byte[0] == stripe_id for byte in model)
        assert meta.stripes.live_bytes(stripe_id) == expected
    inode = meta.inodes.load(ino)
    assert inode is not None and inode.allocated == sum(byte is not None for byte in model)


def check_against(extents: Extents, ino: int, model: list[tuple[int, int] | None]) -> None:
    actual: list[tuple[int, int] | None] = [None] * FILE_BYTES
    end = 0
    for extent in extents.overlapping(ino, 0, EVERYTHING):
        assert extent.offset >= end, "extents overlap"
        end = extent.offset + extent.length
        first = extent.stripe_offset + extent.skip
        actual[extent.offset : end] = [(extent.stripe_id, first + index) for index in range(extent.length)]
        assert extent.codec == Codec.ZSTD or (extent.skip, extent.stored_length) == (0, extent.length)
    assert actual == model


_shared: dict[Path, Metadata] = {}


def shared_database(path: Path) -> Metadata:
    """One database for all examples: making one costs more than an example."""
    if path not in _shared:
        _shared[path] = Metadata.create_fresh(path, bytes(16))
    return _shared[path]
