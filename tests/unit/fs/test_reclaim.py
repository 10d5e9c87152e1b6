"""What is given up at once by many is worked off in steps: inodes that the kernel forgets together, dead stripes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.types import StripeRecord
from ciaosfs.fs import reclaim, slicing
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import Store, complaints, eventually, put, remove


@trio_test
async def test_inodes_forgotten_together_are_purged_in_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "FORGET_CHANGES_MAX", 10)
    monkeypatch.setattr(slicing, "LOOK_S", 1000.0)
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        inodes = [await put(filesystem, b"%d" % number, b"data") for number in range(40)]
        await filesystem.sync()
        for number in range(40):
            await filesystem.unlink(ROOT_INO, b"%d" % number)
        begun = filesystem._meta.database.changes()
        filesystem.forget(inodes)
        assert filesystem._meta.database.changes() - begun < 20
        assert 30 < filesystem._reclaimer.waiting == filesystem.inode_count() - 1 < 40
        slices = 0
        while filesystem._reclaimer.waiting:
            begun = filesystem._meta.database.changes()
            filesystem._reclaimer.step()
            assert filesystem._meta.database.changes() - begun < 70
            slices += 1
        assert filesystem.inode_count() == 1 and 1 < slices < 5
    assert complaints(store.database) == []


@trio_test
async def test_what_is_forgotten_later_waits_for_idle_moments_and_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "FORGOTTEN_MAX", 3)
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        inodes = [await put(filesystem, b"%d" % number, b"data") for number in range(8)]
        kept = inodes.pop()
        for number in range(7):
            await filesystem.unlink(ROOT_INO, b"%d" % number)
        filesystem.forget_later([*inodes[:2], kept])
        assert filesystem.inode_count() == 9
        await filesystem.unlink(ROOT_INO, b"7")
        while filesystem.use_idle_moment():
            pass
        assert filesystem.inode_count() == 7, (
            "one that had a name when it was forgotten is another matter later"
        )
        filesystem.forget_later(inodes[2:5])
        assert filesystem.inode_count() == 7
        filesystem.settle()
        assert filesystem.inode_count() == 4
        filesystem.forget_later([*inodes[5:7], kept])
        filesystem.forget_later([kept])
        assert filesystem.inode_count() == 1, "more than may wait"
    assert complaints(store.database) == []


@trio_test
async def test_dead_stripes_are_given_back_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "DISCARD_STEP", 2)
    monkeypatch.setattr(reclaim, "DISCARD_BATCH", 5)
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        for number in range(7):
            await put(filesystem, b"%d" % number, b"data")
            await filesystem.sync()
        given: list[int] = []
        discard = filesystem._chunks.discard

        async def counting(records: Sequence[StripeRecord]) -> None:
            given.append(len(records))
            await discard(records)

        monkeypatch.setattr(filesystem._chunks, "discard", counting)
        for number in range(7):
            await remove(filesystem, b"%d" % number)
        await filesystem.sync()
        await eventually(lambda: sum(given) == 5)
        await put(filesystem, b"another", b"so that there is a commit")
        await filesystem.sync()
        await eventually(lambda: sum(given) == 7)
        assert given == [2, 2, 1, 2]
        assert filesystem._meta.stripes.count() == 1
    assert complaints(store.database) == []
