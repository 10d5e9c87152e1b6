"""Who waits for a commit is answered, whenever he came."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from tests.support.builders import Store, put
from tests.support.power import PoweredDrives


@pytest.mark.parametrize("moment", ["write", "sync"])
@trio_test
async def test_a_sync_that_comes_during_another_is_answered(tmp_path: Path, moment: str) -> None:
    """With nothing changed since: found by the model runs, where the second waited for ever."""
    store = Store.make(tmp_path / "store")
    power = PoweredDrives()
    async with store.open(opener=power) as filesystem:
        token = trio.lowlevel.current_trio_token()
        waiting = 40

        def beside(what: str, where: str) -> None:
            nonlocal waiting
            if what == moment and waiting:
                waiting -= 1
                token.run_sync_soon(nursery.start_soon, filesystem.sync)

        await put(filesystem, b"file", b"x" * 1000)
        power.before = beside
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                await filesystem.sync()
        assert waiting < 40


@trio_test
async def test_many_writers_that_sync_are_all_answered(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store", data_count=1, parity_count=1)

    async def writer(number: int) -> None:
        for turn in range(10):
            await put(filesystem, b"%d" % number, b"%d" % turn)
            await filesystem.sync()

    async with store.open() as filesystem:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(writer, number)
