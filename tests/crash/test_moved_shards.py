"""Shards that the last commit moved, and a power cut that took them: what was promised before still holds.

Repair and removal write a shard anew, commit its new place, and give the former one back when that is durable.
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.crashpoints import hooked
from ciaosfs.base.errors import NoSpaceError
from ciaosfs.base.types import StripeRecord
from ciaosfs.fs.merge import Merger
from tests.support.builders import Store, complaints, files_of, put
from tests.support.harm import drive_of, records, tear, zero

FILES = {b"large": random.Random(1).randbytes(1_500_000)}


async def moved(tmp_path: Path, indexes: list[int], lost_before: int = 0) -> tuple[Store, StripeRecord]:
    """A store that was killed when a commit had just moved these shards of its only stripe, and the stripe with its new
    places. `lost_before` others were damaged already."""
    store = Store.make(tmp_path / "store")
    left: list[Store] = []

    def reached(name: str) -> None:
        if name == "repair.durable":
            left.append(store.copy(tmp_path / "left"))

    async with store.open() as filesystem:
        for name, data in FILES.items():
            await put(filesystem, name, data)
        await filesystem.sync()
        (stripe,) = records(filesystem)
        for place in stripe.places[-lost_before:] if lost_before else ():
            zero(store, stripe, place)
        with hooked(reached):
            assert await filesystem.parts.mender.mend(stripe.stripe_id, indexes) == len(indexes)
            (stripe,) = records(filesystem)
            await filesystem.sync()
            await filesystem.parts.reclaimer.wait_discarded()
    (killed,) = left
    killed.reboot()
    return killed, stripe


@pytest.mark.parametrize("with_database", [True, False])
@trio_test
async def test_a_stripe_that_lost_moved_shards_is_whole_again_after_the_opening(
    tmp_path: Path, with_database: bool
) -> None:
    store, stripe = await moved(tmp_path, [1, 4])
    for index in (1, 4):
        zero(store, stripe, stripe.places[index])
    if not with_database:
        store.lose_database()
    assert await files_of(store) == FILES
    for lost in itertools.combinations(range(6), 2):
        copy = store.copy(tmp_path / f"without-{lost}")
        for number in lost:
            copy.hide(number)
        assert await files_of(copy) == FILES, lost


@trio_test
async def test_moved_shards_that_were_lost_count_as_missing_while_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 779972564156 of the simulator: they were taken for whole until a scrub."""
    store, stripe = await moved(tmp_path, [1, 4])
    for index in (1, 4):
        zero(store, stripe, stripe.places[index])

    async def no_room(*arguments: object) -> bool:
        raise NoSpaceError("there is no room")

    with monkeypatch.context() as patch:
        patch.setattr(Merger, "merge", no_room)
        async with store.open() as filesystem:
            (found,) = records(filesystem)
            assert [place.shard_index for place in found.places] == [0, 2, 3, 5]
            assert found.missing_count == 2
            assert await filesystem.parts.mender.mend(found.stripe_id, [1, 4]) == 2
            await filesystem.sync()
    for lost in itertools.combinations(range(6), 2):
        copy = store.copy(tmp_path / f"without-{lost}")
        for number in lost:
            copy.hide(number)
        assert await files_of(copy) == FILES, lost


@trio_test
async def test_torn_shards_are_kept_while_the_others_do_not_suffice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three shards another block each is torn: every block is there four times, but only three shards are whole."""
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        for name, data in FILES.items():
            await put(filesystem, name, data)
        await filesystem.sync()
        (stripe,) = records(filesystem)
        killed = store.copy(tmp_path / "killed")
    killed.reboot()
    for number, index in enumerate((0, 1, 4)):
        tear(killed, stripe, stripe.places[index], 2 * number)
    tried = 0

    async def no_room(*arguments: object) -> bool:
        nonlocal tried
        tried += 1
        raise NoSpaceError("there is no room")

    with monkeypatch.context() as patch:
        patch.setattr(Merger, "merge", no_room)
        async with killed.open() as filesystem:
            (found,) = records(filesystem)
            assert [place.shard_index for place in found.places] == [0, 1, 2, 3, 4, 5]
    assert tried
    assert await files_of(killed) == FILES


@trio_test
async def test_with_a_drive_away_two_lost_moved_shards_are_too_many_and_the_former_places_count(
    tmp_path: Path,
) -> None:
    store, stripe = await moved(tmp_path, [1, 4])
    for index in (1, 4):
        zero(store, stripe, stripe.places[index])
    away = drive_of(store, stripe.places[0])
    store.hide(away)
    async with store.open() as filesystem:
        assert any("was dropped" in report for report in filesystem.status().reports)
        (found,) = records(filesystem)
        assert len(found.places) == 6
        assert found.places != stripe.places
    store.bring_back(away)
    assert await files_of(store) == FILES


@trio_test
async def test_when_too_many_moved_shards_are_gone_the_former_places_count(tmp_path: Path) -> None:
    store, stripe = await moved(tmp_path, [0, 2, 3, 5])
    for index in (0, 2, 3, 5):
        zero(store, stripe, stripe.places[index])
    async with store.open() as filesystem:
        assert any("was dropped" in report for report in filesystem.status().reports)
    assert await files_of(store) == FILES
    assert complaints(store.database) == []


@trio_test
async def test_a_stripe_that_was_lost_before_is_no_reason_to_drop_the_commit_that_moved_a_shard_of_it(
    tmp_path: Path,
) -> None:
    store, _ = await moved(tmp_path, [0], lost_before=3)
    async with store.open() as filesystem:
        assert not any("dropped" in report for report in filesystem.status().reports)
