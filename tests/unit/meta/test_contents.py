"""What a changeset says of stripes before it is applied."""

from __future__ import annotations

import pytest

from ciaosfs.base.errors import LogDamagedError
from ciaosfs.meta.contents import stripes_brought
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import add_file, commit, make_stripe, raw


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


def test_garbage_is_damage() -> None:
    with pytest.raises(LogDamagedError):
        stripes_brought(b"garbage")
