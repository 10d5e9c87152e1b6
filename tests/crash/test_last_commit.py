"""The last commit, which may be in doubt: only its sync was the promise.

It counts when what it references can be read, and is dropped otherwise; one that was answered is never dropped.
"""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.errors import CiaosError
from ciaosfs.base.types import StripeRecord
from ciaosfs.drive.local import volume_name
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta.inodes import ROOT_INO
from ciaosfs.meta.metadata import Metadata
from tests.support.builders import WHO, Store, complaints, eventually, files_of, put, remove
from tests.support.power import Fate, PoweredDrives, copy_database

OLD = b"as of the commit before"
LARGE = random.Random(5).randbytes(1_500_000)
SMALL = b"small, so it lies beside the commit"


def stripes_after(store: Store, known: int) -> list[StripeRecord]:
    """The stripes of the database of a store that is not open, above an id."""
    meta = Metadata.open(store.database)
    try:
        records = [meta.stripes.load(stripe_id) for stripe_id in meta.stripes.ids_after(known)]
        return [record for record in records if record is not None]
    finally:
        meta.close()


def highest_stripe(store: Store) -> int:
    meta = Metadata.open(store.database)
    try:
        return meta.stripes.highest_id()
    finally:
        meta.close()


def zero_shards(store: Store, record: StripeRecord, count: int) -> None:
    """Let the first bytes of `count` shards be as if they had never been written."""
    for place in record.places[:count]:
        paths = [drive.path / "volumes" / volume_name(place.volume_id) for drive in store.config.drives]
        path = next(path for path in paths if path.exists())
        with path.open("r+b") as file:
            file.seek(place.offset)
            file.write(bytes(min(record.shard_bytes, 64 * 1024)))


async def in_doubt(tmp_path: Path, data: bytes) -> tuple[Store, Store]:
    """A killed store whose last commit brought `data`, and its database as of the commit before."""
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        await put(filesystem, b"file", OLD)
        await filesystem.sync()
        before = copy_database(store, tmp_path / "before")
        await put(filesystem, b"file", data)
        await put(filesystem, b"beside", SMALL)
        await filesystem.sync()
        return store.copy(tmp_path / "killed"), before


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["replicated", "coded"])
@pytest.mark.parametrize("lost_shards", [1, 2])
@pytest.mark.parametrize("database", ["behind", "at the commit", "gone"])
@trio_test
async def test_readable_counts(tmp_path: Path, data: bytes, lost_shards: int, database: str) -> None:
    killed, before = await in_doubt(tmp_path, data)
    for record in stripes_after(killed, 0):
        zero_shards(killed, record, lost_shards)
    if database == "behind":
        killed.replace_database(before)
    elif database == "gone":
        killed.lose_database()
    killed.reboot()
    assert await files_of(killed) == {b"file": data, b"beside": SMALL}


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["replicated", "coded"])
@pytest.mark.parametrize("database", ["behind", "at the commit", "gone"])
@trio_test
async def test_unreadable_is_dropped(tmp_path: Path, data: bytes, database: str) -> None:
    """More shards than parity were not written back before the power went; needle, and maybe SQLite's WAL, were."""
    killed, before = await in_doubt(tmp_path, data)
    for record in stripes_after(killed, highest_stripe(before)):
        zero_shards(killed, record, 3)
    if database == "behind":
        killed.replace_database(before)
    elif database == "gone":
        killed.lose_database()
    killed.reboot()
    async with killed.open() as filesystem:
        assert any("dropped" in report for report in filesystem.status().reports)
    assert await files_of(killed) == {b"file": OLD}
    assert complaints(killed.database) == []


@pytest.mark.parametrize("works_on", [False, True])
@trio_test
async def test_what_was_dropped_stays_dropped(tmp_path: Path, works_on: bool) -> None:
    """Also when the shards are found again after people have seen the tree without that commit."""
    killed, before = await in_doubt(tmp_path, LARGE)
    known = highest_stripe(before)
    drives = [drive.number for drive in killed.config.drives]
    undamaged = {path: path.read_bytes() for number in drives for path in killed.volumes(number)}
    for record in stripes_after(killed, known):
        zero_shards(killed, record, len(record.places))
    killed.reboot()
    expected = {b"file": OLD}
    async with killed.open() as filesystem:
        if works_on:
            expected[b"instead"] = SMALL
            await put(filesystem, b"instead", SMALL)
            await filesystem.sync()
        seen = killed.copy(tmp_path / "killed again")
    for path, data in undamaged.items():
        with (seen.path / path.relative_to(killed.path)).open("r+b") as file:
            file.write(data)
    for happening in ("nothing", "reboot", "database lost"):
        if happening == "reboot":
            seen.reboot()
        if happening == "database lost":
            seen.lose_database()
        assert await files_of(seen) == expected, happening
        assert complaints(seen.database) == []


async def make_stripe_die_before_the_cut(filesystem: FileSystem, store: Store) -> None:
    """Write a full stripe, let it land, and unlink its file, all within one commit."""
    ino = await put(filesystem, b"short-lived", random.Random(6).randbytes(4 << 20))
    await eventually(lambda: filesystem.status().pending_bytes == 0)
    assert filesystem.getattr(ino).allocated == 4 << 20
    await remove(filesystem, b"short-lived")


@pytest.mark.parametrize("database", ["behind", "at the commit", "gone"])
@trio_test
async def test_a_stripe_that_died_within_the_last_commit_is_no_reason_to_drop_it(
    tmp_path: Path, database: str
) -> None:
    """Its space is given back as soon as the commit is synced, so it cannot be read: and need not be."""
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        await put(filesystem, b"file", OLD)
        await filesystem.sync()
        before = copy_database(store, tmp_path / "before")
        used = store.used_bytes()
        await make_stripe_die_before_the_cut(filesystem, store)
        await put(filesystem, b"file", SMALL)
        await filesystem.sync()
        await eventually(lambda: store.used_bytes() < used + (1 << 20))
        killed = store.copy(tmp_path / "killed")
    if database == "behind":
        killed.replace_database(before)
    elif database == "gone":
        killed.lose_database()
    killed.reboot()
    assert await files_of(killed) == {b"file": SMALL}
    assert complaints(killed.database) == []


@pytest.mark.parametrize("seed", range(8))
@trio_test
async def test_power_cut_within_a_commit_shows_the_one_before_or_all_of_it(tmp_path: Path, seed: int) -> None:
    """The power goes at a write or sync drawn by lot, and takes of what was not synced what the dice say."""
    dice = random.Random(seed)
    store = Store.make(tmp_path / "store")
    power = PoweredDrives()
    left: list[Store] = []
    at = dice.randrange(40)
    fate = dice.choice([Fate.WRITES, Fate.SECTORS, Fate.KEPT, Fate.LOST])
    async with store.open(opener=power) as filesystem:
        await put(filesystem, b"file", OLD)
        await filesystem.sync()
        before = copy_database(store, tmp_path / "before")
        countdown = iter(range(at, -1, -1))

        def strike(what: str, where: str) -> None:
            if next(countdown, None) == 0:
                left.append(power.cut(store, tmp_path / "left", fate, dice))

        power.before = strike
        await put(filesystem, b"file", LARGE)
        await put(filesystem, b"beside", SMALL)
        await filesystem.sync()
        power.before = lambda what, where: None
        if not left:
            left.append(power.cut(store, tmp_path / "left", fate, dice))
    (cut,) = left
    if dice.random() < 0.7:
        cut.replace_database(before)
    whole = {b"file": LARGE, b"beside": SMALL}
    assert await files_of(cut) in ([whole] if not left else [whole, {b"file": OLD}])
    assert complaints(cut.database) == []


@trio_test
async def test_after_a_failed_sync_no_further_commit_is_made(tmp_path: Path) -> None:
    """A commit that could not be synced is followed by no other: recovery doubts the last one only.

    Two drives fail while the file data of one commit is synced, more than parity replaces; the drives left would take
    further commits. The power goes, and the tree must be as before the commit that failed, not have a lost file in it.
    """
    store = Store.make(tmp_path / "store", data_count=2, parity_count=1, spare=3)
    power = PoweredDrives()
    with pytest.raises(BaseExceptionGroup) as closing:
        async with store.open(opener=power) as filesystem:
            await put(filesystem, b"file", OLD)
            await filesystem.sync()
            before = copy_database(store, tmp_path / "before")
            await put(filesystem, b"file", LARGE)
            failing: set[int] = set()

            def broken(what: str, where: str) -> None:
                if what == "sync":
                    if not failing:
                        failing.update(
                            [drive for drive, size in power.unsynced().items() if size > 500_000][:2]
                        )
                    if int(where.split("/")[0]) in failing:
                        raise OSError(5, "the bus was reset")

            power.before = broken
            for name in (b"first", b"second", b"third"):
                handle, _ = await filesystem.create(ROOT_INO, name, 0o600, os.O_RDWR, WHO)
                filesystem.release(handle)
                with pytest.raises(CiaosError):
                    await filesystem.sync()
            assert len(failing) == 2
            left = power.cut(store, tmp_path / "left", Fate.LOST, random.Random(1))
    assert closing.group_contains(CiaosError)
    for database in ("at the commit", "behind"):
        if database == "behind":
            left.replace_database(before)
        left.reboot()
        assert await files_of(left) == {b"file": OLD}, database


@pytest.mark.parametrize("database", ["kept", "gone"])
@trio_test
async def test_what_a_killed_process_left_unsynced_is_synced_before_anything_builds_on_it(
    tmp_path: Path, database: str
) -> None:
    """Killed between needle and sync, mounted again, committed, and only then the power goes."""
    store = Store.make(tmp_path / "store")
    power = PoweredDrives()
    async with store.open(power) as filesystem:
        await put(filesystem, b"first", OLD)
        await filesystem.sync()
        power.is_honest = (
            False  # what follows stays in the page cache, as if the process had died before its sync
        )
        await put(filesystem, b"second", LARGE)
        await filesystem.sync()
    assert sum(power.unsynced().values()) > len(LARGE)
    power.is_honest = True
    async with store.open(power) as filesystem:
        await put(filesystem, b"third", SMALL)
        await filesystem.sync()
        left = power.cut(store, tmp_path / "left", Fate.LOST, random.Random(1))
    if database == "gone":
        left.lose_database()
    assert await files_of(left) == {b"first": OLD, b"second": LARGE, b"third": SMALL}


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["replicated", "coded"])
@trio_test
async def test_torn_stripes_that_count_get_their_parity_back(tmp_path: Path, data: bytes) -> None:
    """Two shards of each stripe of the last commit were torn; after the next opening any two drives may be lost."""
    killed, before = await in_doubt(tmp_path, data)
    for record in stripes_after(killed, highest_stripe(before)):
        zero_shards(killed, record, 2)
    killed.reboot()
    expected = {b"file": data, b"beside": SMALL}
    assert await files_of(killed) == expected
    for first, second in itertools.combinations(range(6), 2):
        left = killed.copy(tmp_path / f"without-{first}-{second}")
        left.hide(first)
        left.hide(second)
        assert await files_of(left) == expected, f"without drives {first} and {second}"


@pytest.mark.parametrize("database", ["behind", "at the commit", "gone"])
@trio_test
async def test_shards_that_a_power_cut_tore_are_made_good_before_the_next_fsync_promises_them(
    tmp_path: Path, database: str
) -> None:
    """The commit counts with two shards of a stripe gone; then two drives with good ones are lost."""
    killed, before = await in_doubt(tmp_path, LARGE)
    for record in stripes_after(killed, highest_stripe(before)):
        zero_shards(killed, record, 2)
    if database == "behind":
        killed.replace_database(before)
    elif database == "gone":
        killed.lose_database()
    killed.reboot()
    async with killed.open() as filesystem:
        await put(filesystem, b"next", b"next")
        await filesystem.sync()
        left = killed.copy(tmp_path / "left")
    for lost in ((0, 1), (2, 3), (4, 5), (0, 5), (1, 3)):
        copy = left.copy(tmp_path / f"lost{lost}")
        for number in lost:
            copy.hide(number)
        copy.lose_database()
        assert await files_of(copy) == {b"file": LARGE, b"beside": SMALL, b"next": b"next"}, lost


@pytest.mark.parametrize("seed", range(8))
@trio_test
async def test_a_power_cut_while_torn_stripes_are_made_good_leaves_one_of_two_moments(
    tmp_path: Path, seed: int
) -> None:
    """Nobody was told of the commit with the torn stripes, nor of the one that was to heal it: both may have to go."""
    killed, before = await in_doubt(tmp_path, LARGE)
    known = highest_stripe(before)
    for record in stripes_after(killed, known):
        zero_shards(killed, record, 2)
    killed.reboot()
    dice = random.Random(seed)
    left: list[Store] = []
    power = PoweredDrives()

    def strike(what: str, where: str) -> None:
        """When the commit that heals lies on the drives, and nothing of it is synced."""
        if what == "sync" and sum(power.unsynced().values()) > len(LARGE):
            left.append(power.cut(killed, tmp_path / f"left{len(left)}", Fate.WRITES, dice))

    power.before = strike
    async with killed.open(power):
        pass
    assert left
    for cut in left[:3]:
        for number in dice.sample(range(6), 2):
            cut.hide(number)
        assert await files_of(cut) in ({b"file": LARGE, b"beside": SMALL}, {b"file": OLD})
        assert complaints(cut.database) == []
