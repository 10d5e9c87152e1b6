"""Shards are rebuilt under a live tree: the metadata learns the new places, the old ones are given back."""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.crashpoints import hooked
from ciaosfs.base.types import ShardPlace
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.stripe.layout import place_of
from tests.support.builders import Store, complaints, eventually, files_in, files_of, get, put, remove


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def only_stripe(filesystem: FileSystem) -> int:
    (stripe_id,) = filesystem.parts.meta.stripes.ids_after(0)
    return stripe_id


def needle(store: Store, place: ShardPlace, length: int = 64) -> bytes:
    name = f"{place.volume_id:016x}.vol"
    path = next(file for drive in range(7) for file in store.volumes(drive) if file.name == name)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, place.offset)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("size", [5_000, 900_000])
@trio_test
async def test_a_mended_shard_is_read_and_its_former_place_is_given_back(tmp_path: Path, size: int) -> None:
    store = Store.make(tmp_path / "store", spare=1)
    data = random.Random(size).randbytes(size)
    async with store.open() as filesystem:
        await put(filesystem, b"file", data)
        await filesystem.sync()
        parts, stripe_id = filesystem.parts, only_stripe(filesystem)
        before = parts.meta.stripes.load(stripe_id)
        assert before is not None
        assert await get(filesystem, b"file") == data
        assert await parts.mender.mend(stripe_id, [0, 1]) == 2
        after = parts.meta.stripes.load(stripe_id)
        assert after is not None and after.missing_count == 0
        assert place_of(after, 0) != place_of(before, 0) and place_of(after, 2) == place_of(before, 2)
        former = before.places[0]
        assert needle(store, former).startswith(b"CIAOSNDL"), "given back before anything was durable"
        await filesystem.sync()
        if size > 16 * 4096:  # small needles share their pages with neighbours
            await eventually(lambda: not needle(store, former).strip(b"\0"))
        assert await get(filesystem, b"file") == data
        assert await parts.chunks.damaged_shards(after) == []
    assert complaints(store.database) == []
    assert await files_of(store) == {b"file": data}


@trio_test
async def test_a_stripe_that_dies_meanwhile_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", spare=1)
    async with store.open() as filesystem:
        await put(filesystem, b"file", random.Random(1).randbytes(900_000))
        await filesystem.sync()
        parts, stripe_id = filesystem.parts, only_stripe(filesystem)
        record = parts.meta.stripes.load(stripe_id)
        assert record is not None
        rebuilt = await parts.chunks.rebuild(record, [3])
        await remove(filesystem, b"file")
        await filesystem.sync()
        await eventually(lambda: parts.meta.stripes.load(stripe_id) is None)
        assert parts.mender._record(record, rebuilt) == 0
        await put(filesystem, b"other", b"another commit")
        await filesystem.sync()
        await eventually(lambda: not needle(store, rebuilt.places[3]).strip(b"\0"))
        assert await parts.mender.mend(stripe_id, [3]) == 0
    assert complaints(store.database) == []


@trio_test
async def test_a_place_that_changed_meanwhile_wins(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", spare=1)
    data = random.Random(1).randbytes(900_000)
    async with store.open() as filesystem:
        await put(filesystem, b"file", data)
        await filesystem.sync()
        parts, stripe_id = filesystem.parts, only_stripe(filesystem)
        record = parts.meta.stripes.load(stripe_id)
        assert record is not None
        late = await parts.chunks.rebuild(record, [2])
        assert await parts.mender.mend(stripe_id, [2]) == 1
        winner = parts.meta.stripes.load(stripe_id)
        assert parts.mender._record(record, late) == 0
        assert parts.meta.stripes.load(stripe_id) == winner
        await filesystem.sync()
        await eventually(lambda: not needle(store, late.places[2]).strip(b"\0"))
        assert await files_in(filesystem) == {b"file": data}
    assert complaints(store.database) == []


@trio_test
async def test_the_former_place_stays_while_somebody_reads_it(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", spare=1)
    async with store.open() as filesystem:
        await put(filesystem, b"file", random.Random(1).randbytes(900_000))
        await filesystem.sync()
        parts, stripe_id = filesystem.parts, only_stripe(filesystem)
        record = parts.meta.stripes.load(stripe_id)
        assert record is not None
        parts.reclaimer.pin(stripe_id)
        await parts.mender.mend(stripe_id, [1])
        await filesystem.sync()
        await parts.reclaimer.wait_discarded()
        assert needle(store, record.places[1]).startswith(b"CIAOSNDL")
        parts.reclaimer.unpin(stripe_id)
        await eventually(lambda: not needle(store, record.places[1]).strip(b"\0"))


@trio_test
async def test_every_step_is_named(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", spare=1)
    reached: list[str] = []
    async with store.open() as filesystem:
        await put(filesystem, b"file", random.Random(1).randbytes(900_000))
        await filesystem.sync()
        with hooked(reached.append):
            await filesystem.parts.mender.mend(only_stripe(filesystem), [4])
            await filesystem.sync()
            await eventually(lambda: "repair.given-back" in reached)
    assert reached == ["repair.written", "repair.recorded", "repair.durable", "repair.given-back"]
