"""Each of these breaks one promise on purpose and must be caught by the checks that the other tests rely on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.errors import FsError
from ciaosfs.fs.reclaim import Reclaimer
from tests.crash.test_windows import all_moments, check_moment
from tests.support.builders import Store, complaints, eventually, files_of, put
from tests.support.power import Fate, PoweredDrives


@trio_test
async def test_drives_that_do_not_sync_are_caught(tmp_path: Path) -> None:
    """The same moments as in tests/crash, over drives whose sync says yes and does nothing."""
    run, moments = await all_moments(tmp_path, "power cut", seed=1, is_honest=False)
    caught = 0
    for moment in moments:
        try:
            await check_moment(moment, run)
        except Exception:  # noqa: BLE001 - whatever tells is welcome here
            caught += 1
    assert caught > len(moments) // 4


@trio_test
async def test_an_answer_before_the_sync_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk store whose sync returns at once."""

    async def nothing(self: object) -> None:
        return

    monkeypatch.setattr("ciaosfs.stripe.store.ChunkStore.sync", nothing)
    store = Store.make(tmp_path / "store")
    power = PoweredDrives()
    async with store.open(opener=power) as filesystem:
        await put(filesystem, b"file", b"answered")
        await filesystem.sync()
        left = power.cut(store, tmp_path / "left", Fate.LOST, random.Random(1))
    assert await files_of(left) != {b"file": b"answered"}


@trio_test
async def test_reading_without_verifying_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One flipped bit in every copy, and checksums that are always right."""
    data = random.Random(1).randbytes(50_000)
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        await put(filesystem, b"file", data)
    for path in [path for drive in store.config.drives for path in store.volumes(drive.number)]:
        content = bytearray(path.read_bytes())
        at = bytes(content).find(data[20_000:20_100])
        if at >= 0:
            content[at] ^= 1
            path.write_bytes(content)
    with pytest.raises(ExceptionGroup) as refused:
        await files_of(store)
    assert refused.group_contains(FsError)
    monkeypatch.setattr("ciaosfs.volume.reader.verify_blocks", lambda *arguments: None)
    assert await files_of(store) != {b"file": data}


@trio_test
async def test_discarding_what_is_in_use_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reclaimer that takes living stripes for dead ones."""

    def committed(self: Reclaimer) -> None:
        self._batch = self._meta.stripes.ids_after(0)

    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        await put(filesystem, b"file", b"in use")
        monkeypatch.setattr(Reclaimer, "committed", committed)
        await filesystem.sync()
        await eventually(lambda: filesystem.status().stripes_by_missing == {})
    assert complaints(store.database) != []
