"""Needles of which a power cut left the head and took the rest, the length of the file too: what is written after them
does not lie in their place, which is given back as a whole."""

from __future__ import annotations

import random
from pathlib import Path

from trio.testing import trio_test

from ciaosfs.checking.check import check_store
from ciaosfs.codec.needle import head_bytes_for
from ciaosfs.jobs.sweep import Sweeper
from tests.support.builders import Store, files_in, files_of, put, remove
from tests.support.harm import needle_of, records, volume_path

GONE = random.Random(1).randbytes(1_500_000)
FILES = {b"after": random.Random(2).randbytes(500_000)}


@trio_test
async def test_what_follows_a_torn_needle_outlives_the_giving_back_of_its_place(tmp_path: Path) -> None:
    """Seed 1002737658141 of the simulator: a cut undid the giving back and took the length; a scrub gave back again."""
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        await put(filesystem, b"gone", GONE)
        await filesystem.sync()
        (stripe,) = records(filesystem)
        needles = {place: needle_of(store, stripe, place) for place in stripe.places}
        await remove(filesystem, b"gone")
        await filesystem.sync()
        await filesystem.parts.reclaimer.wait_discarded()
    for place, needle in needles.items():
        path = volume_path(store, place.volume_id)
        kept = head_bytes_for(stripe.shard_bytes) + 20_000
        with path.open("r+b") as file:
            file.truncate(place.offset)
            file.seek(place.offset)
            file.write(needle[:kept])
    store.reboot()
    async with store.open() as filesystem:
        for name, data in FILES.items():
            await put(filesystem, name, data)
        await filesystem.sync()
        (stripe,) = records(filesystem)
        assert {place.volume_id for place in stripe.places} == {place.volume_id for place in needles}
        sweeper = Sweeper(filesystem.parts)
        for place in needles:
            await sweeper.sweep(place.volume_id)
        await sweeper.give_back()
        assert sweeper.needles == len(needles)
        assert await check_store(filesystem, data=True) == []
        assert (await files_in(filesystem) == FILES) is True
    assert (await files_of(store) == FILES) is True
