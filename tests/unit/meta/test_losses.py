"""Which stripes are lost, how much the others can spare, and whose bytes were in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciaosfs.base import limits
from ciaosfs.meta.inodes import ROOT_INO
from ciaosfs.meta.losses import (
    DamagedFile,
    Lost,
    damaged_files,
    gone_volumes,
    lost_stripes,
    stripes_by_spare,
)
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import VOLUME_ID, add_file, commit, fresh, make_stripe, raw


@pytest.fixture
def meta(tmp_path: Path) -> Metadata:
    """Stripes 1 to 4 on drives 0 to 5, each with one file; 5 is dead; 2, 3, 4 and 5 miss 1, 2, 3 and 6 shards."""
    meta = fresh(tmp_path / "m")
    for stripe_id in range(1, 6):
        meta.stripes.insert(make_stripe(stripe_id))
        if stripe_id < 5:
            ino = add_file(meta, b"file%d" % stripe_id, size=100)
            meta.extents.replace(ino, 0, 100, [raw(0, 100, stripe_id)])
    for stripe_id, lost in ((2, 1), (3, 2), (4, 3), (5, 6)):
        for place in make_stripe(stripe_id).places[:lost]:
            meta.stripes.forget_shard(stripe_id, place)
    commit(meta)
    return meta


def test_lost_for_good(meta: Metadata) -> None:
    with meta.reader() as reader:
        assert list(lost_stripes(reader)) == [Lost(4, 4, 2, 3)]
        assert stripes_by_spare(reader) == {1: 1, 0: 1, -1: 1}
        assert [file.paths for file in damaged_files(reader, lost_stripes(reader))] == [[b"/file4"]]


def test_lost_with_drives_volumes_and_bad_shards(meta: Metadata) -> None:
    with meta.reader() as reader:
        assert [lost.stripe_id for lost in lost_stripes(reader, absent_drives=[5])] == [3, 4]
        assert [lost.stripe_id for lost in lost_stripes(reader, gone_volumes=[VOLUME_ID + 5])] == [3, 4]
        assert [lost.stripe_id for lost in lost_stripes(reader, [VOLUME_ID + 5], [4])] == [2, 3, 4]
        assert [lost.stripe_id for lost in lost_stripes(reader, bad_shards=[(2, 5), (2, 4), (3, 5)])] == [
            2,
            3,
            4,
        ]
        # A volume of a drive that is absent anyway counts once, and drive 0 has nothing of stripes 2 to 4 any more.
        assert [lost.lost_count for lost in lost_stripes(reader, [VOLUME_ID + 5], [5])] == [3, 4]
        assert [lost.stripe_id for lost in lost_stripes(reader, absent_drives=[0])] == [4]
        assert stripes_by_spare(reader, absent_drives=[5]) == {1: 1, 0: 1, -1: 1, -2: 1}
        assert stripes_by_spare(reader, [VOLUME_ID + 5], [5]) == {1: 1, 0: 1, -1: 1, -2: 1}


def test_stripes_that_were_found_lost(meta: Metadata) -> None:
    """Those that are dead or gone by now do not count."""
    with meta.reader() as reader:
        assert list(lost_stripes(reader, found_lost=[1, 4, 5, 99])) == [Lost(4, 4, 2, 3), Lost(1, 4, 2, 3)]


def test_volumes_that_are_gone(meta: Metadata) -> None:
    with meta.reader() as reader:
        assert gone_volumes(reader, lambda volume, drive: drive == 3) == [VOLUME_ID + 3]
        assert gone_volumes(reader, lambda volume, drive: False) == []


def test_files_are_found_in_batches_and_without_a_name(
    meta: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DAMAGED_BATCH_FILES", 1)
    meta.dentries.remove(ROOT_INO, b"file3")
    commit(meta)
    with meta.reader() as reader:
        found = list(damaged_files(reader, lost_stripes(reader, absent_drives=[5])))
    assert found == [DamagedFile(4, []), DamagedFile(5, [b"/file4"])]
