"""A sound store has nothing wrong with it, open or not; each kind of harm is reported, and nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base.types import VolumeKind
from ciaosfs.checking.check import check_open, check_store
from ciaosfs.checking.findings import Progress
from ciaosfs.codec.needle import head_bytes_for
from ciaosfs.codec.superblock import decode_superblock, encode_superblock
from ciaosfs.drive.local import volume_name
from ciaosfs.meta.placements import Placement
from tests.support.builders import Store
from tests.unit.checking.support import closed, file_of, fill, flip, shards


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A filled store, closed; to be copied."""
    store = Store.make(tmp_path_factory.mktemp("checking") / "store")

    @trio_test
    async def fill_it() -> None:
        async with store.open() as filesystem:
            await fill(filesystem)

    fill_it()
    return store


def coded(store: Store) -> Placement:
    return next(shard for shard in shards(store) if shard.data_count > 1)


def test_the_store_has_both_kinds_of_stripes(sound: Store) -> None:
    assert {shard.data_count for shard in shards(sound)} == {1, 4}


@trio_test
async def test_a_sound_store_that_is_open(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        assert await check_store(filesystem, data=True) == []
        await fill(filesystem)
        findings = await check_open(filesystem, data=True)
        assert (findings.problems, findings.notes, findings.problem_count) == ([], [], 0)
    async with store.open() as filesystem:
        assert await check_store(filesystem, data=True) == []


@trio_test
async def test_a_sound_store_that_is_closed_and_does_not_change(sound: Store) -> None:
    before = {path: path.read_bytes() for path in sound.path.rglob("*") if path.is_file()}
    findings = await closed(sound, data=True)
    assert (findings.problems, findings.notes) == ([], [])
    assert {path: path.read_bytes() for path in sound.path.rglob("*") if path.is_file()} == before


@trio_test
async def test_a_store_that_was_never_open(tmp_path: Path) -> None:
    findings = await closed(Store.make(tmp_path / "store"), data=True)
    assert (findings.problems, findings.notes) == ([], [])


@trio_test
async def test_a_check_can_be_stopped_and_cancelled(sound: Store, tmp_path: Path) -> None:
    async with sound.copy(tmp_path / "store").open() as filesystem:
        progress = Progress()
        progress.stop()
        await check_open(filesystem, data=True, progress=progress)
        assert progress.stage != "done"
        progress = Progress()
        with trio.move_on_after(0) as scope:
            await check_open(filesystem, data=True, progress=progress)
        assert scope.cancelled_caught
        progress = Progress()
        await check_open(filesystem, data=True, progress=progress)
        assert progress.stage == "done"


@trio_test
async def test_a_damaged_superblock_and_a_drive_that_is_away_are_notes(sound: Store, tmp_path: Path) -> None:
    store = sound.copy(tmp_path / "store")
    shard = coded(store)
    flip(file_of(store, shard), 20)
    findings = await closed(store)
    assert findings.problems == []
    assert findings.notes == [
        f"Volume {shard.volume_id:016x} on drive {shard.drive} has a damaged superblock, which nothing depends on: "
        "the superblock of a volume fails its checksum."
    ]
    store.hide(5)
    findings = await closed(store)
    assert findings.problems == []
    assert [note for note in findings.notes if "drive 5 is away" in note]


# One thing broken at a time. Each returns the beginnings of the sentences it causes.

Harm = Callable[[Store], list[str]]


def flip_a_head(store: Store) -> list[str]:
    shard = coded(store)
    flip(file_of(store, shard), shard.offset + 40)
    return [
        f"Shard {shard.shard_index} of stripe {shard.stripe_id} on drive {shard.drive} is damaged: "
        "a needle fails the checksum of its head."
    ]


def lose_a_needle(store: Store) -> list[str]:
    shard = coded(store)
    with file_of(store, shard).open("r+b") as file:
        file.seek(shard.offset)
        file.write(bytes(head_bytes_for(shard.shard_bytes) + shard.shard_bytes))
    return [
        f"Shard {shard.shard_index} of stripe {shard.stripe_id} on drive {shard.drive} is damaged: there is no needle"
    ]


def swap_two_needles(store: Store) -> list[str]:
    """Two whole needles of one length, each in the other's place."""
    all_shards = shards(store)
    one = coded(store)
    other = next(s for s in all_shards if s.shard_bytes == one.shard_bytes and s.volume_id != one.volume_id)
    pieces = []
    for shard in (one, other):
        with file_of(store, shard).open("rb") as file:
            file.seek(shard.offset)
            pieces.append(file.read(shard.end - shard.offset))
    for shard, piece in zip((other, one), pieces, strict=True):
        with file_of(store, shard).open("r+b") as file:
            file.seek(shard.offset)
            file.write(piece)
    return [
        f"Shard {s.shard_index} of stripe {s.stripe_id} on drive {s.drive} is damaged: the needle at byte"
        for s in (one, other)
    ]


def cut_a_volume(store: Store) -> list[str]:
    shard = max((s for s in shards(store) if s.data_count > 1), key=lambda s: (s.volume_id, s.offset))
    with file_of(store, shard).open("r+b") as file:
        file.truncate(shard.offset + 100)
    return [f"Shard {shard.shard_index} of stripe {shard.stripe_id} on drive {shard.drive} is damaged: "]


def remove_a_volume(store: Store) -> list[str]:
    shard = coded(store)
    file_of(store, shard).unlink()
    count = sum(other.volume_id == shard.volume_id for other in shards(store))
    return [
        f"Volume {shard.volume_id:016x} on drive {shard.drive} is not there: {count} shards are lost with it."
    ]


def say_another_kind(store: Store) -> list[str]:
    shard = coded(store)
    path = file_of(store, shard)
    found = decode_superblock(path.read_bytes())
    with path.open("r+b") as file:
        file.write(encode_superblock(replace(found, kind=VolumeKind.LOG)))
    return [f"Volume {shard.volume_id:016x} on drive {shard.drive} is of kind 2, and the metadata says 1."]


def say_another_drive(store: Store) -> list[str]:
    shard = coded(store)
    path = file_of(store, shard)
    found = decode_superblock(path.read_bytes())
    with path.open("r+b") as file:
        file.write(encode_superblock(replace(found, drive_number=17)))
    return [f"Volume {shard.volume_id:016x} on drive {shard.drive} was made for drive 17."]


def lose_three_shards(store: Store) -> list[str]:
    victim = coded(store).stripe_id
    lost = sorted(s for s in shards(store) if s.stripe_id == victim)[:3]
    for shard in lost:
        flip(file_of(store, shard), shard.offset + 40)
    sentences = [f"Shard {s.shard_index} of stripe {victim} on drive {s.drive} is damaged: " for s in lost]
    return [*sentences, f"Stripe {victim} cannot be read any more: 3 of its 6 shards are missing or damaged."]


def log_volumes(store: Store) -> list[Path]:
    with sqlite3.connect(store.database) as database:
        rows = database.execute(
            "SELECT volume, drive FROM volumes WHERE kind = ?", (VolumeKind.LOG,)
        ).fetchall()
    database.close()
    return [store.drive(drive) / "volumes" / volume_name(volume) for volume, drive in sorted(rows)]


def damage_a_copy_of_a_commit(store: Store) -> list[str]:
    path = log_volumes(store)[0]
    flip(path, path.read_bytes().index(b"CIAOSLOG") + 100)
    return ["Commit 1 is whole on 2 of 3 drives only"]


def lose_a_commit(store: Store) -> list[str]:
    for path in log_volumes(store):
        flip(path, path.read_bytes().index(b"CIAOSLOG") + 100)
    return ["Commit 1 is not in the drives' log, which does not lead up to commit"]


HARMS: list[Harm] = [
    flip_a_head,
    lose_a_needle,
    swap_two_needles,
    cut_a_volume,
    remove_a_volume,
    say_another_kind,
    say_another_drive,
    lose_three_shards,
    damage_a_copy_of_a_commit,
    lose_a_commit,
]


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("harm", HARMS)
@trio_test
async def test_one_harm_is_reported_alone(sound: Store, tmp_path: Path, harm: Harm, is_open: bool) -> None:
    store = sound.copy(tmp_path / "store")
    if is_open:
        async with store.open() as filesystem:
            expected = harm(store)
            findings = await check_open(filesystem)
    else:
        expected = harm(store)
        findings = await closed(store)
    assert len(findings.problems) == len(expected), findings.problems
    for sentence, beginning in zip(sorted(findings.problems), sorted(expected), strict=True):
        assert sentence.startswith(beginning)
    assert findings.notes == []
