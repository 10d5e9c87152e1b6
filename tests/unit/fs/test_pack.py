"""Packing: when small stripes are merged, that nothing changes in files, and how much room is used afterwards."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import trio_test

from ciaosfs.base import clock, limits
from ciaosfs.base.types import VolumeKind
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.fs.pack import Packer, plan_pack
from ciaosfs.meta.inodes import ROOT_INO
from ciaosfs.meta.reports import SmallStripe
from tests.support.builders import (
    WHO,
    Store,
    complaints,
    content,
    eventually,
    files_in,
    files_of,
    put,
    remove,
)

DATA_CONSTANT_BYTES = 4 * limits.MIB
"""What is young and small on top; the logs, which are bounded for themselves, are not counted here."""
NOW_MS = 1_800_000_000_000


def stripe(age_ms: int, live_bytes: int, *, is_hot: bool = True, number: int = 0) -> SmallStripe:
    return SmallStripe((NOW_MS - age_ms << 21) + number, live_bytes, is_hot)


def packer_of(filesystem: FileSystem) -> Packer:
    parts = filesystem.parts
    return Packer(parts.meta, parts.compactor._merger, parts.workers)


def test_fresh_replicated_stripes_wait_until_they_are_old_or_many() -> None:
    young = [stripe(900, 4096, number=number) for number in range(5)]
    assert plan_pack(young, NOW_MS) == []
    assert plan_pack(young, NOW_MS + 10_000) == [one.stripe_id for one in young]
    many = [stripe(900, limits.HOT_PAYLOAD_BYTES_MAX, number=number) for number in range(8)]
    assert plan_pack(many, NOW_MS) == [one.stripe_id for one in many]


def test_small_coded_stripes_wait_until_they_are_many() -> None:
    few = [stripe(99_000, 1000, is_hot=False, number=number) for number in range(limits.PACK_SMALL_COUNT - 1)]
    assert plan_pack(few, NOW_MS) == []
    assert len(plan_pack([*few, few[0]], NOW_MS)) == limits.PACK_SMALL_COUNT
    large = [stripe(99_000, limits.SMALL_PAYLOAD_BYTES_MAX, is_hot=False, number=n) for n in range(4)]
    assert plan_pack(large, NOW_MS) == [one.stripe_id for one in large]
    alone = stripe(99_000, limits.PACK_SMALL_BYTES, is_hot=False)
    assert plan_pack([alone], NOW_MS) == [], "a stripe alone would be copied for ever"


def test_stripes_that_are_short_because_they_compress_well_are_left_alone() -> None:
    """Two of them together are as short again: they were copied one by one, for ever."""
    full = limits.STRIPE_PAYLOAD_BYTES_MAX
    assert plan_pack([stripe(99_000, full, is_hot=False, number=n) for n in range(100)], NOW_MS) == []


@trio_test
async def test_packing_well_compressible_data_comes_to_an_end(tmp_path: Path) -> None:
    async with Store.make(tmp_path / "store", 2, 1).open() as filesystem:
        for number in range(4):
            await put(filesystem, b"%d" % number, b"all alike " * 400_000)
        await filesystem.sync()
        packer = packer_of(filesystem)
        for _ in range(20):
            chosen = plan_pack(packer._look(), clock.now_ns() // 1_000_000 + 20_000)
            if not chosen:
                break
            await filesystem.parts.compactor._merger.merge(chosen, "pack")
            await give_back(filesystem)
        else:
            raise AssertionError("it goes on for ever")


@given(
    st.lists(
        st.builds(
            stripe,
            st.integers(0, 60_000),
            st.integers(1, limits.SMALL_PAYLOAD_BYTES_MAX),
            is_hot=st.booleans(),
            number=st.integers(0, 99),
        )
    )
)
def test_no_more_is_chosen_than_fits_into_one(stripes: list[SmallStripe]) -> None:
    stripes.sort()
    chosen = plan_pack(stripes, NOW_MS)
    by_id = {one.stripe_id: one.live_bytes for one in stripes}
    assert sum(by_id[stripe_id] for stripe_id in set(chosen)) <= limits.STRIPE_PAYLOAD_BYTES_MAX
    hot = [one for one in stripes if one.is_hot]
    if hot and NOW_MS - clock.made_ms(hot[0].stripe_id) >= limits.PACK_AGE_S * 1000:
        assert chosen, "old replicated stripes are packed before anything else"


def hot_stripes(filesystem: FileSystem) -> list[int]:
    meta = filesystem.parts.meta
    kinds = {volume.volume_id: volume.kind for volume in meta.volumes.all()}
    found = []
    for stripe_id in meta.stripes.ids_after(0):
        record = meta.stripes.load(stripe_id)
        assert record is not None
        if any(kinds.get(place.volume_id) == VolumeKind.LOG for place in record.places):
            found.append(stripe_id)
    return found


@trio_test
async def test_a_log_written_line_by_line_comes_to_lie_in_few_extents(tmp_path: Path) -> None:
    """A logger that fsyncs every line: each is a hot stripe, and packing makes runs of them."""
    store = Store.make(tmp_path / "store", 4, 2)
    async with store.open() as filesystem:
        handle, inode = await filesystem.create(ROOT_INO, b"log", 0o600, os.O_RDWR, WHO)
        lines = [b"%6d " % number * 200 for number in range(80)]
        at = 0
        for line in lines:
            at += await filesystem.write(handle, at, line)
            await filesystem.sync()
        await put(filesystem, b"last", b"the commit after: now every log volume is known to the metadata")
        await filesystem.sync()
        assert len(hot_stripes(filesystem)) >= 80
        packer = packer_of(filesystem)
        later = clock.now_ns() // 1_000_000 + 20_000
        chosen = plan_pack(packer._look(), later)
        assert len(chosen) >= 80
        await filesystem.parts.compactor._merger.merge(chosen, "pack")
        await filesystem.sync()
        assert len(filesystem._meta.extents.overlapping(inode.ino, 0, at)) <= 2
        assert await content(filesystem, inode.ino) == b"".join(lines)
        await eventually(lambda: not set(chosen) & set(filesystem._meta.stripes.ids_after(0)))
    assert complaints(store.database) == []
    assert (await files_of(store))[b"log"] == b"".join(lines)


async def give_back(filesystem: FileSystem) -> None:
    """Until nothing is dead any more."""
    await filesystem.sync()
    while filesystem._meta.stripes.dead(1):
        await filesystem.parts.reclaimer.wait_discarded()
        await filesystem.sync()


@pytest.mark.parametrize("seed", [1])
@trio_test
async def test_the_space_used_stays_near_what_is_live(tmp_path: Path, seed: int) -> None:
    """A long random workload, then a sync and some peace: at most 1.25 times (k+m)/k of the live bytes, and a constant."""
    dice = random.Random(seed)
    store = Store.make(tmp_path / "store", 4, 2)
    async with store.open() as filesystem:
        expected: dict[bytes, bytearray] = {}
        for number in range(700):
            name = b"f%d" % dice.randrange(200)
            if name not in expected:
                data = dice.randbytes(dice.choice((300, 9_000, 70_000, 900_000)))
                expected[name] = bytearray(data)
                await put(filesystem, name, data)
            elif dice.random() < 0.5:
                del expected[name]
                await remove(filesystem, name)
            else:
                found = filesystem.lookup(ROOT_INO, name)
                assert found is not None
                handle = await filesystem.open(found.ino, os.O_RDWR, WHO)
                at = dice.randrange(len(expected[name]))
                new = dice.randbytes(dice.choice((100, 5_000, 60_000)))
                await filesystem.write(handle, at, new)
                expected[name][at : at + len(new)] = new
                filesystem.release(handle)
            if number % 10 == 0:
                await filesystem.sync()
        packer = packer_of(filesystem)
        for _ in range(3):  # what packing and compaction free is dead with the next commit
            await give_back(filesystem)
            while chosen := plan_pack(packer._look(), clock.now_ns() // 1_000_000 + 20_000):
                await filesystem.parts.compactor._merger.merge(chosen, "pack")
                await give_back(filesystem)
            while await filesystem.parts.compactor.step():
                await give_back(filesystem)
        assert await files_in(filesystem) == {name: bytes(data) for name, data in expected.items()}
        live = filesystem.parts.reclaimer.allocated_bytes
        meta = filesystem.parts.meta
        volumes = {volume.volume_id for volume in meta.volumes.all() if volume.kind == VolumeKind.DATA}
        files = [path for drive in store.config.drives for path in drive.path.rglob("*.vol")]
        used = sum(path.stat().st_blocks * 512 for path in files if int(path.stem, 16) in volumes)
        assert live > 16 * limits.MIB, "enough for the share to say something"
        assert used <= 1.25 * 6 / 4 * live + DATA_CONSTANT_BYTES, f"{used / live:.2f} times the live bytes"
    assert complaints(store.database) == []
