"""Stripes, their shards, and which of them are dead or incomplete."""

from __future__ import annotations

from dataclasses import replace

from ciaosfs.base.types import ShardPlace, StripeKind
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import VOLUME_ID, add_file, commit, complaints, make_stripe, raw


def test_what_is_inserted_is_loaded(meta: Metadata) -> None:
    whole = make_stripe(1)
    partial = replace(make_stripe(2), places=make_stripe(2).places[1:4])
    nothing = replace(make_stripe(3), places=(), kind=StripeKind.IMAGE)
    for record in (whole, partial, nothing):
        meta.stripes.insert(record)
        loaded = meta.stripes.load(record.stripe_id)
        assert loaded == record
        assert loaded is not None and isinstance(loaded.kind, StripeKind)
    assert meta.stripes.load(4) is None
    assert meta.stripes.count() == 3
    assert meta.stripes.highest_id() == 3
    assert meta.stripes.ids_after(1) == [2, 3]
    assert complaints(meta) == []


def test_moves_are_told(meta: Metadata) -> None:
    moved: list[int] = []
    meta.stripes.on_moved = moved.append
    record = make_stripe(7)
    meta.stripes.insert(record)
    assert meta.stripes.forget_shard(7, record.places[2])
    assert not meta.stripes.forget_shard(7, record.places[2])
    meta.stripes.put_shard(7, record.places[2])
    assert moved == [7, 7]
    assert meta.stripes.load(7) == record


def test_counts_by_missing_shards(meta: Metadata) -> None:
    assert meta.stripes.count_by_missing() == {}
    for stripe_id in (1, 2, 3):
        meta.stripes.insert(make_stripe(stripe_id))
    meta.stripes.insert(replace(make_stripe(4), places=make_stripe(4).places[:3]))
    assert meta.stripes.count_by_missing() == {0: 3, 3: 1}
    assert [record.stripe_id for record in meta.stripes.with_missing(10)] == [4]


def test_a_lost_shard_is_missing_until_it_is_put_back(meta: Metadata) -> None:
    record = make_stripe(1)
    meta.stripes.insert(record)
    lost = record.places[2]
    assert meta.stripes.forget_shard(1, lost)
    assert not meta.stripes.forget_shard(1, lost)
    loaded = meta.stripes.load(1)
    assert loaded is not None and loaded.missing_count == 1 and lost not in loaded.places
    moved = ShardPlace(2, VOLUME_ID, 1 << 20)
    meta.stripes.put_shard(1, moved)
    assert meta.stripes.count_by_missing() == {0: 1}
    meta.stripes.put_shard(1, moved._replace(offset=2 << 20))
    assert meta.stripes.count_by_missing() == {0: 1}
    assert not meta.stripes.forget_shard(1, moved), "a report about the old place must not lose the new one"
    assert complaints(meta) == []


def test_a_stripe_is_dead_without_extents_and_not_before(meta: Metadata) -> None:
    ino = add_file(meta, b"f", size=100)
    meta.stripes.insert(make_stripe(1))
    meta.stripes.insert(replace(make_stripe(2), kind=StripeKind.IMAGE))
    assert meta.stripes.dead(10) == [1]
    meta.extents.replace(ino, 0, 100, [raw(0, 100, 1)])
    assert meta.stripes.dead(10) == []
    commit(meta)
    meta.extents.replace(ino, 0, 99, [])
    assert meta.stripes.dead(10) == []
    meta.extents.replace(ino, 99, 100, [])
    assert meta.stripes.dead(10) == [1]
    meta.stripes.delete(1)
    meta.stripes.delete(1)
    assert meta.stripes.load(1) is None and meta.stripes.dead(10) == []
    assert meta.stripes.count() == 1
    assert complaints(meta) == []


def test_dead_stripes_come_lowest_first_and_bounded(meta: Metadata) -> None:
    for stripe_id in (30, 10, 20):
        meta.stripes.insert(make_stripe(stripe_id))
    assert meta.stripes.dead(2) == [10, 20]


def test_live_bytes_pass_through_zero_within_a_commit(meta: Metadata) -> None:
    one, two = add_file(meta, b"1", size=10), add_file(meta, b"2", size=10)
    meta.stripes.insert(make_stripe(1))
    meta.extents.replace(one, 0, 10, [raw(0, 10, 1)])
    meta.extents.replace(one, 0, 10, [])
    meta.extents.replace(two, 0, 10, [raw(0, 10, 1)])
    assert meta.stripes.live_bytes(1) == 10
    assert meta.stripes.live_bytes(2) is None
    assert complaints(meta) == []


def test_stripes_of_a_volume_come_in_pages(meta: Metadata) -> None:
    for stripe_id in (3, 1, 2):
        meta.stripes.insert(make_stripe(stripe_id))
    found = meta.stripes.in_volume(VOLUME_ID + 5, 0, 2)
    assert found == [make_stripe(1), make_stripe(2)]
    assert meta.stripes.in_volume(VOLUME_ID + 5, 2, 2) == [make_stripe(3)]
    assert meta.stripes.in_volume(VOLUME_ID + 6, 0, 2) == []
