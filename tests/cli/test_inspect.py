"""`ciaosfs inspect` prints what is there, and of a damaged store what is wrong with it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trio.testing import trio_test

from ciaosfs.drive.local import volume_name
from ciaosfs.meta.placements import Placement, placements
from ciaosfs.meta.reader import Reader
from tests.cli.conftest import Ciaosfs
from tests.support.builders import Store, put, remove

Inspect = Callable[..., dict[str, Any]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One coded stripe, and a replicated one that is dead, in four commits."""
    store = Store.make(tmp_path / "store")

    @trio_test
    async def fill() -> None:
        async with store.open() as filesystem:
            await put(filesystem, b"large", random.Random(1).randbytes(700_000))
            await filesystem.sync()
            await put(filesystem, b"small", b"x" * 3000)
            await filesystem.sync()
            await remove(filesystem, b"small")
            await filesystem.sync()

    fill()
    return store


@pytest.fixture
def inspect(ciaosfs: Ciaosfs, store: Store) -> Inspect:
    """The facts of one `inspect`, and that people are told the same things."""

    def call(*arguments: str, status: int = 0) -> dict[str, Any]:
        said = ciaosfs("inspect", *arguments, store.path)
        outcome = ciaosfs("inspect", *arguments, store.path, "--json")
        assert (said.status, outcome.status) == (status, status), outcome.err
        fields: dict[str, Any] = json.loads(outcome.out)
        assert fields["type"] == arguments[0]
        assert len(said.out.splitlines()) > 2
        assert said.err.count("\n") == len(fields["trouble"])
        return fields

    return call


def first_shard(store: Store) -> Placement:
    with Reader(store.database) as reader:
        return next(placements(reader))


def file_of(store: Store, shard: Placement) -> Path:
    assert shard.drive is not None
    return store.drive(shard.drive) / "volumes" / volume_name(shard.volume_id)


def flip(store: Store, shard: Placement, at: int) -> None:
    with file_of(store, shard).open("r+b") as file:
        file.seek(shard.offset + at)
        byte = file.read(1)[0]
        file.seek(shard.offset + at)
        file.write(bytes([byte ^ 1]))


def test_state(store: Store, inspect: Inspect) -> None:
    facts = inspect("state")
    assert facts["state"]["sequence"] == facts["newest_commit_on_drives"] >= 3
    assert facts["counters"]["files"] == 1
    assert facts["state"]["name_seed"] == "secret"
    assert facts["images"] == []
    assert (facts["parts"], facts["trouble"]) == ("4+2", [])


def test_drive(store: Store, inspect: Inspect) -> None:
    facts = inspect("drive", "0")
    assert (facts["state"], facts["next"]) == ("there", None)
    assert sum(volume["shards"] for volume in facts["volumes"]) == 1
    assert [f"{volume['volume']}.vol" for volume in facts["volumes"]] == [
        path.name for path in store.volumes(0)
    ]
    short = inspect("drive", "0", "--limit", "1")
    assert len(short["volumes"]) == 1
    rest = inspect("drive", "0", "--after", short["next"])
    assert short["volumes"] + rest["volumes"] == facts["volumes"]


def test_volume_lists_its_needles_with_their_state(store: Store, inspect: Inspect) -> None:
    shard = first_shard(store)
    facts = inspect("volume", f"{shard.volume_id:016x}")
    assert facts["superblock"]["kind"] == "data"
    assert [(n["offset"], n["stripe"], n["shard"], n["state"]) for n in facts["needles"]] == [
        (shard.offset, shard.stripe_id, shard.shard_index, "live")
    ]
    log = next(path for path in store.volumes(0) if b"CIAOSLOG" in path.read_bytes())
    states = [needle["state"] for needle in inspect("volume", log.name)["needles"]]
    assert states.count("dead") == 1 and states.count("commit") >= 3
    short = inspect("volume", log.name, "--limit", "2")
    assert len(short["needles"]) == 2
    rest = inspect("volume", log.name, "--from", str(short["next"]))
    assert len(rest["needles"]) == len(states) - 2


def test_volume_shows_what_is_torn_and_what_is_missing(store: Store, inspect: Inspect) -> None:
    shard = first_shard(store)
    flip(store, shard, 20_000)
    assert [n["state"] for n in inspect("volume", volume_name(shard.volume_id))["needles"]] == ["torn"]
    flip(store, shard, 40)
    needles = inspect("volume", volume_name(shard.volume_id))["needles"]
    assert [(n["state"], n["stripe"]) for n in needles] == [("missing", shard.stripe_id)]
    with file_of(store, shard).open("r+b") as file:
        file.write(b"not a superblock")
    assert "does not begin with" in inspect("volume", volume_name(shard.volume_id))["superblock"]["damaged"]


def test_needle(store: Store, inspect: Inspect) -> None:
    shard = first_shard(store)
    place = (volume_name(shard.volume_id), str(shard.offset))
    facts = inspect("needle", *place)
    assert (facts["state"], facts["stripe"], facts["shard"]) == ("live", shard.stripe_id, shard.shard_index)
    assert (facts["blocks"], facts["bad_blocks"]) == (-(-shard.shard_bytes // 16384), [])
    flip(store, shard, 4096 + 3 * 16384)
    facts = inspect("needle", *place)
    assert (facts["state"], facts["bad_blocks"]) == ("torn", [3])
    flip(store, shard, 5)
    facts = inspect("needle", *place)
    assert facts["state"] == "no needle" and "mark is missing" in facts["reason"]
    assert len(bytes.fromhex(facts["bytes_there"])) == 128


def test_stripe(store: Store, inspect: Inspect) -> None:
    shard = first_shard(store)
    facts = inspect("stripe", str(shard.stripe_id))
    assert [one["state"] for one in facts["shards"]] == ["good"] * 6
    assert facts["readable"] is True
    assert sum(extent["length"] for extent in facts["extents"]) == 700_000
    assert facts["files"] == [{"ino": facts["extents"][0]["ino"], "path": "/large"}]
    flip(store, shard, 20_000)
    assert shard.drive is not None
    away = (shard.drive + 1) % 6
    (store.drive(away) / "drive.json").unlink()
    facts = inspect("stripe", str(shard.stripe_id), status=7)
    states = {one["drive"]: one["state"] for one in facts["shards"]}
    assert [states.pop(number) for number in (away, shard.drive)] == ["away", "damaged"]
    assert set(states.values()) == {"good"}
    assert facts["trouble"] == [f"{store.drive(away)} has no drive.json: drive {away} is not there."]


def test_stripe_without_a_database_is_searched_for(store: Store, inspect: Inspect) -> None:
    shard = first_shard(store)
    store.lose_database()
    flip(store, shard, 20_000)
    facts = inspect("stripe", str(shard.stripe_id), status=7)
    assert [one["state"] for one in facts["shards"]].count("good") == 5
    assert facts["form"] == [f"4+2 shards of {shard.shard_bytes} bytes"]
    assert "is missing" in facts["trouble"][0]
    assert [n["state"] for n in inspect("volume", volume_name(shard.volume_id), status=7)["needles"]] == [
        "torn"
    ]
    assert "state" not in inspect("state", status=7)


def test_commit(store: Store, inspect: Inspect) -> None:
    facts = inspect("commit", "1")
    (commit,) = facts["commits"]
    assert len({copy["drive"] for copy in commit["copies"]}) == 3
    assert commit["parent_id"] == "0" * 16
    rows = [(change["op"], change["table"]) for change in commit["changes"]]
    assert ("insert", "inodes") in rows and ("insert", "dentries") in rows
    (name,) = [change["values"]["name"] for change in commit["changes"] if change["table"] == "dentries"]
    assert name == "large"
    (state,) = [change["values"] for change in commit["changes"] if change["table"] == "state"]
    assert state["name_seed"] == "secret"
    (second,) = inspect("commit", "2", "--limit", "3")["commits"]
    assert second["parent_id"] == commit["commit_id"]
    assert (len(second["changes"]), second["more_changes"]) == (3, True)
    copy = commit["copies"][0]
    path = store.drive(copy["drive"]) / "volumes" / f"{copy['volume']}.vol"
    content = bytearray(path.read_bytes())
    content[copy["offset"] + 300] ^= 1
    path.write_bytes(content)
    facts = inspect("commit", "1")
    assert len(facts["commits"][0]["copies"]) == 2
    assert facts["damaged_copies"][0]["drive"] == copy["drive"]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["stripe", "17"], 3, "The metadata knows no stripe 17."),
        (["commit", "4711"], 3, "No drive that is there has commit 4711."),
        (["volume", "1"], 3, "Volume 0000000000000001 is on no drive that is there."),
        (["drive", "6"], 2, "The store has no drive 6"),
        (["volume", "what"], 2, "'what' is no volume"),
    ],
)
def test_what_is_not_there(
    ciaosfs: Ciaosfs, store: Store, arguments: list[str], status: int, sentence: str
) -> None:
    outcome = ciaosfs("inspect", *arguments, store.path)
    assert outcome.status == status
    assert sentence in outcome.err
    assert outcome.out == ""
