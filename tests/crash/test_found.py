"""Windows that the simulator found, each by itself."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base.errors import NoSpaceError
from ciaosfs.drive.local import volume_name
from tests.crash.test_last_commit import LARGE, SMALL, highest_stripe, in_doubt, stripes_after, zero_shards
from tests.support.builders import Store, complaints, eventually, files_in, files_of, put
from tests.support.chunks import Bench, some_bytes
from tests.support.needles import last_commit
from tests.support.power import PoweredDrives


@trio_test
async def test_a_commit_that_people_did_not_see_does_not_come_back(tmp_path: Path) -> None:
    """Killed when two of three drives had the needle; then mounted without those two; then they are back."""
    store = Store.make(tmp_path / "store", data_count=1, parity_count=2)
    power, left = PoweredDrives(), list[Store]()
    async with store.open(power) as filesystem:
        await put(filesystem, b"file", b"one")
        await filesystem.sync()
        await put(filesystem, b"file", b"two")
        writes = 0

        def strike(what: str, where: str) -> None:
            nonlocal writes
            writes += what == "write"
            if writes == 6 and not left:  # three are copies of the data
                left.append(store.copy(tmp_path / "left"))

        power.before = strike
        await filesystem.sync()
        power.before = lambda what, where: None
    (killed,) = left
    unseen = [copy.drive for copy in last_commit(killed)]
    assert len(unseen) == 2
    for number in unseen:
        killed.hide(number)
    async with killed.open() as filesystem:
        assert await files_in(filesystem) == {b"file": b"one"}
        again = killed.copy(tmp_path / "again")
    for number in unseen:
        again.bring_back(number)
    assert await files_of(again) == {b"file": b"one"}


@pytest.mark.parametrize("database", ["at the commit", "gone"])
@trio_test
async def test_torn_stripes_are_healed_though_the_commit_that_healed_them_is_dropped(
    tmp_path: Path, database: str
) -> None:
    """A power cut tears the last commit, and the next one comes when the opening after it has healed that."""
    torn, before = await in_doubt(tmp_path, LARGE)
    for record in stripes_after(torn, highest_stripe(before)):
        zero_shards(torn, record, 2)
    torn.reboot()
    known = highest_stripe(torn)
    power, left = PoweredDrives(), list[Store]()

    def strike(what: str, where: str) -> None:
        if what == "sync" and not left:
            left.append(torn.copy(tmp_path / "left"))

    power.before = strike
    async with torn.open(power):
        pass
    (cut,) = left
    healed = stripes_after(cut, known)
    assert healed
    for record in healed:
        zero_shards(cut, record, len(record.places))
    if database == "gone":
        cut.lose_database()
    cut.reboot()
    async with cut.open() as filesystem:
        assert any("dropped" in report for report in filesystem.status().reports)
    for first, second in itertools.combinations(range(6), 2):
        copy = cut.copy(tmp_path / f"without-{first}-{second}")
        copy.hide(first)
        copy.hide(second)
        assert await files_of(copy) == {b"file": LARGE, b"beside": SMALL}, f"without {first} and {second}"


@trio_test
async def test_the_place_of_a_shard_that_never_arrived_is_not_used_again(tmp_path: Path) -> None:
    """A power cut takes a shard of the last commit and its length: the commit counts, the stripe is written anew, and
    when the old one is given back, nothing of the new one may lie where its lost shard should have been.
    """
    torn, before = await in_doubt(tmp_path, LARGE)
    known = highest_stripe(before)
    lost = [record for record in stripes_after(torn, known) if record.data_count > 1]
    for place in lost[0].places[:2]:
        path = next(
            path
            for drive in torn.config.drives
            for path in torn.volumes(drive.number)
            if path.name == volume_name(place.volume_id)
        )
        os.truncate(path, min(place.offset, path.stat().st_size))
    torn.reboot()
    async with torn.open() as filesystem:
        await put(filesystem, b"more", SMALL)
        await filesystem.sync()
        await eventually(lambda: filesystem._meta.stripes.load(lost[0].stripe_id) is None)
        await filesystem._reclaimer.wait_discarded()
        expected = await files_in(filesystem)
    for first, second in itertools.combinations(range(6), 2):
        copy = torn.copy(tmp_path / f"without-{first}-{second}")
        copy.hide(first)
        copy.hide(second)
        assert await files_of(copy) == expected, f"without {first} and {second}"


@trio_test
async def test_what_was_written_of_a_needle_before_its_drive_was_full_does_not_fill_it_for_ever(
    tmp_path: Path,
) -> None:
    bench = Bench.make(tmp_path, 1, 1, spare=1)
    async with bench.store() as chunks:
        await chunks.write_stripe([some_bytes(1_000_000)])
        for faults in (bench.opener[0], bench.opener[1]):
            faults.bytes_left = 500_000
        before = used_bytes(bench)
        for _ in range(4):
            with pytest.raises(NoSpaceError):
                await chunks.write_stripe([some_bytes(1_000_000)])
            for faults in (bench.opener[0], bench.opener[1]):
                faults.bytes_left = 500_000
    assert used_bytes(bench) < before + 100_000


def used_bytes(bench: Bench) -> int:
    return sum(path.stat().st_blocks * 512 for path in bench.root.rglob("*.vol"))


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@trio_test
async def test_a_store_that_is_cancelled_saves_whole_files_or_nothing(tmp_path: Path, data: bytes) -> None:
    """As when one of its own tasks dies: the last commit is made while everything around it is being cancelled."""
    store = Store.make(tmp_path / "store")
    with trio.move_on_after(60), trio.CancelScope() as scope:
        async with store.open() as filesystem:
            await put(filesystem, b"before", SMALL)
            await filesystem.sync()
            await put(filesystem, b"file", data)
            scope.cancel()
    assert await files_of(store) == {b"before": SMALL, b"file": data}
    assert complaints(store.database) == []


@trio_test
async def test_who_waits_for_a_commit_while_the_store_is_cancelled_is_answered(tmp_path: Path) -> None:
    """Also in a scope that is shielded, as the last steps of letting a drive go are."""
    store = Store.make(tmp_path / "store")
    with trio.fail_after(30), trio.CancelScope() as scope:
        async with store.open() as filesystem:
            await put(filesystem, b"file", SMALL)
            scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.sleep(0.1)
                await filesystem.sync()
                await filesystem.sync()
    assert await files_of(store) == {b"file": SMALL}
