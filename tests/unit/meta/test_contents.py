"""What a changeset says of stripes before it is applied."""

from __future__ import annotations

import pytest

from ciaosfs.base.errors import LogDamagedError
from ciaosfs.base.types import ShardPlace
from ciaosfs.meta.contents import shards_moved, stripes_brought, stripes_given_up
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import VOLUME_ID, add_file, commit, make_stripe, raw


def test_only_new_stripes_are_brought(meta: Metadata) -> None:
    meta.stripes.insert(make_stripe(9))
    meta.stripes.insert(make_stripe(3))
    ino = add_file(meta, b"f", size=100)
    assert stripes_brought(commit(meta).changeset) == [3, 9]
    meta.extents.replace(ino, 0, 10, [raw(0, 10, 3)])
    meta.stripes.insert(make_stripe(10))
    meta.stripes.delete(9)
    assert stripes_brought(commit(meta).changeset) == [10]
    assert stripes_brought(b"") == []


def test_stripes_of_which_nothing_is_left_are_given_up(meta: Metadata) -> None:
    ino = add_file(meta, b"f", size=300)
    for number, stripe_id in enumerate((3, 4, 5)):
        meta.stripes.insert(make_stripe(stripe_id))
        meta.extents.replace(ino, number * 100, number * 100 + 100, [raw(number * 100, 100, stripe_id)])
    meta.stripes.insert(make_stripe(6))
    assert stripes_given_up(commit(meta).changeset) == set()
    meta.extents.replace(ino, 0, 150, [])
    assert stripes_given_up(commit(meta).changeset) == {3}
    meta.extents.replace(ino, 150, 200, [])
    meta.stripes.delete(3)
    meta.stripes.delete(4)
    assert stripes_given_up(commit(meta).changeset) == {4}


def test_shards_of_older_stripes_that_have_new_places_are_moved(meta: Metadata) -> None:
    meta.stripes.insert(make_stripe(3))
    meta.stripes.insert(make_stripe(4))
    assert shards_moved(commit(meta).changeset) == {}
    stripe = make_stripe(3)
    meta.stripes.put_shard(3, ShardPlace(2, VOLUME_ID + 2, 77 * 4096))
    meta.stripes.forget_shard(3, stripe.places[5])
    meta.stripes.forget_shard(4, make_stripe(4).places[1])
    meta.stripes.insert(make_stripe(5))
    assert shards_moved(commit(meta).changeset) == {3: [2]}
    meta.stripes.put_shard(4, ShardPlace(1, VOLUME_ID + 5, 78 * 4096))
    assert shards_moved(commit(meta).changeset) == {4: [1]}


def test_garbage_is_damage() -> None:
    with pytest.raises(LogDamagedError):
        stripes_brought(b"garbage")
    with pytest.raises(LogDamagedError):
        stripes_given_up(b"garbage")
