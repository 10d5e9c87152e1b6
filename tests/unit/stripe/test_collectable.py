"""Which volumes may be deleted: not those written to, nor those with shards that the metadata was not told of."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.errors import NoSpaceError
from ciaosfs.base.types import VolumeKind
from ciaosfs.stripe.store import ChunkStore
from tests.support.chunks import Bench, some_bytes


def volumes(bench: Bench, kind: VolumeKind) -> list[int]:
    return sorted(volume for volume, (_, of_kind, _) in bench.volumes.items() if of_kind is kind)


@trio_test
async def test_a_rolled_log_goes_on_in_new_volumes_with_higher_ids(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        await chunks.append_commit(1, b"before")
        before = volumes(bench, VolumeKind.LOG)
        assert chunks.log_volume_min() == before[0]
        await chunks.roll_log()
        after = [volume for volume in volumes(bench, VolumeKind.LOG) if volume not in before]
        assert len(after) == len(before) == 2
        assert chunks.log_volume_min() == after[0] > before[-1]
        await chunks.append_commit(2, b"after")
        assert [entry.sequence for entry in chunks.scan_log(chunks.log_volume_min())] == [2, 2]
        assert not any(chunks.is_in_use(volume) for volume in before)
        for volume in before:
            assert await chunks.remove_volume(volume)
        assert [entry.sequence for entry in chunks.scan_log(0)] == [2, 2]


@trio_test
async def test_a_log_rolled_before_anything_was_written(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        await chunks.roll_log()
        low = chunks.log_volume_min()
        await chunks.append_commit(1, b"first")
        assert min(volumes(bench, VolumeKind.LOG)) > low


@trio_test
async def test_a_volume_with_a_shard_that_has_no_row_is_not_removed(tmp_path: Path) -> None:
    """The stripe is hot, its volumes sealed since: only the store itself knows of it."""
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        record = await chunks.write_stripe([b"hot"])
        held = [place.volume_id for place in record.places]
        await chunks.roll_log()
        assert all(chunks.is_in_use(volume) for volume in held)
        assert not await chunks.remove_volume(held[0])
        chunks.landed(record.stripe_id)
        assert not any(chunks.is_in_use(volume) for volume in held)
        assert await chunks.remove_volume(held[0])


@trio_test
async def test_a_stripe_that_was_refused_holds_no_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        await chunks.write_stripe([some_bytes(300_000)])
        with monkeypatch.context() as patch:
            refuse(chunks, patch)
            with pytest.raises(NoSpaceError):
                await chunks.write_stripe([some_bytes(300_000)])
        assert len(chunks._spreader.unlanded._volumes) == 1


def refuse(chunks: ChunkStore, patch: pytest.MonkeyPatch) -> None:
    """Every drive is full as soon as it is asked."""
    patch.setattr(chunks._chooser, "for_data", lambda *_: [])


@trio_test
async def test_volumes_of_earlier_sessions_are_told_from_those_of_this_one(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path, 2, 1)
    async with bench.store() as chunks:
        await chunks.append_commit(1, b"old")
        await chunks.write_stripe([some_bytes(300_000)])
        assert chunks.former_volumes() == []
    old = sorted(bench.volumes)
    async with bench.store() as chunks:
        await chunks.append_commit(2, b"new")
        former = dict(chunks.former_volumes())
        assert sorted(former) == old
        assert {volume: chunks.kind_of(volume) for volume in old} == {
            volume: bench.volumes[volume][1] for volume in old
        }
        for volume in old:
            with bench.path_of(volume).open("r+b") as file:
                file.write(bytes(100))
    async with bench.store() as chunks:
        kinds = {volume: chunks.kind_of(volume) for volume in old}
    assert kinds == {volume: bench.volumes[volume][1] for volume in old}, "by what is in them"
