"""A kill or a power cut at each step of a repair: the same files, and the repair goes on to its end."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.crashpoints import POINTS, hooked
from tests.support.builders import Store, complaints, eventually, files_in, files_of, put
from tests.support.harm import bad_shards, flip, records
from tests.support.power import Fate, PoweredDrives

FILES = {
    b"hot": random.Random(1).randbytes(3_000),
    b"coded": random.Random(2).randbytes(900_000),
    b"more": random.Random(3).randbytes(2_000_000),
}
REPAIR = {name for name in POINTS if name.startswith("repair.")}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


async def harmed(tmp_path: Path, spare: int) -> Store:
    """A store in which each stripe has two bad shards."""
    store = Store.make(tmp_path / "store", spare=spare)
    async with store.open() as filesystem:
        for name, data in FILES.items():
            await put(filesystem, name, data)
            await filesystem.sync()
        stripes = records(filesystem)
    for record in stripes:
        for place in record.places[:2]:
            flip(store, record, place)
    return store


async def repair(store: Store, opener: PoweredDrives | None = None) -> None:
    """Find everything that is damaged, and wait until it is repaired and the former needles are given back."""
    opening = store.open_with_jobs() if opener is None else store.open_with_jobs(opener=opener)
    async with opening as (filesystem, jobs):
        await jobs.runner.wait(await jobs.scrubs.now(1.0))
        await jobs.healer.settle()
        # A shard that is whole is moved, too: what lay at its former place is given back.
        await filesystem.parts.mender.mend(records(filesystem)[-1].stripe_id, [3])
        await filesystem.sync()
        await filesystem.parts.reclaimer.wait_discarded()


async def check(store: Store, what: str) -> None:
    """The same files before and after a repair, and then without any two drives."""
    assert await files_of(store) == FILES, what
    assert complaints(store.database) == [], what
    async with store.open_with_jobs() as (filesystem, jobs):
        await jobs.runner.wait(await jobs.scrubs.now(1.0))
        await jobs.healer.settle()
        assert await files_in(filesystem) == FILES, what
        bad = await bad_shards(filesystem)
        # Judged afterwards: a stripe may be packed and given back while its shards are looked at.
        live = {r.stripe_id for r in records(filesystem) if filesystem.parts.mender.is_live(r.stripe_id)}
        assert not [shard for shard in bad if shard[0] in live], what
        await eventually(lambda: len(records(filesystem)) == len(live))
    assert complaints(store.database) == [], what
    for number in (0, 3):
        store.hide(number)
    assert await files_of(store) == FILES, what


@pytest.mark.parametrize("spare", [0, 1])
@trio_test
async def test_a_kill_at_each_step_of_a_repair(tmp_path: Path, spare: int) -> None:
    store = await harmed(tmp_path, spare)
    left: dict[str, Store] = {}
    times: dict[str, int] = dict.fromkeys(REPAIR, 0)

    def strike(name: str) -> None:
        if name in REPAIR:
            times[name] += 1
            key = f"{name}-{times[name]}"
            if times[name] in (1, 3):
                left[key] = store.copy(tmp_path / key)

    with hooked(strike):
        await repair(store)
    assert all(times.values()), f"a step was never reached: {times}"
    await check(store, "to the end")
    for what, copy in left.items():
        await check(copy, what)


@pytest.mark.parametrize("fate", list(Fate))
@trio_test
async def test_a_power_cut_at_each_step_of_a_repair(tmp_path: Path, fate: Fate) -> None:
    """Also without the database, which is then made from the drives."""
    store = await harmed(tmp_path, 1)
    power, dice = PoweredDrives(), random.Random(str(fate))
    left: dict[str, Store] = {}

    def strike(name: str) -> None:
        if name in REPAIR and name not in left:
            left[name] = power.cut(store, tmp_path / name, fate, dice)

    with hooked(strike):
        await repair(store, power)
    assert set(left) == REPAIR
    for what, copy in left.items():
        copy.reboot()
        bare = copy.copy(tmp_path / f"bare-{what}")
        bare.lose_database()
        await check(copy, what)
        await check(bare, f"{what}, database lost")
