"""Small commits, images at any time, databases deleted, drives lost, needles flipped and torn: what was synced is there."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError
from ciaosfs.checking.check import check_store
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.fs import collect, image
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import WHO, Store, complaints, files_in, put, remove
from tests.support.needles import Copy, image_stripes, log_volumes, needle_copies

NAMES = [b"%d" % number for number in range(12)]


async def change(filesystem: FileSystem, dice: random.Random) -> None:
    """One small commit's worth: a file, mostly small, made, replaced, renamed or removed."""
    name, other = dice.sample(NAMES, 2)
    luck = dice.random()
    if luck < 0.6 or filesystem.lookup(ROOT_INO, name) is None:
        size = dice.choice([0, 10, 2000, 30_000, 200_000])
        await put(filesystem, name, dice.randbytes(dice.randrange(size + 1)))
    elif luck < 0.8:
        await filesystem.rename(ROOT_INO, name, ROOT_INO, other, 0)
    else:
        await remove(filesystem, name)
    await filesystem.sync()


def flip(copy: Copy, dice: random.Random) -> None:
    with copy.path.open("r+b") as file:
        at = copy.offset + dice.randrange(copy.length)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << dice.randrange(8)]))


def tear(copy: Copy, dice: random.Random) -> None:
    kept = dice.randrange(copy.length)
    with copy.path.open("r+b") as file:
        file.seek(copy.offset + kept)
        file.write(bytes(copy.length - kept))


def harm(store: Store, unlucky: list[int], dice: random.Random) -> None:
    """What may happen to a store while nobody has it open: to the database anything, to drives only the unlucky ones."""
    if dice.random() < 0.6:
        store.lose_database()
    if dice.random() < 0.7:
        store.reboot()
    there = [number for number in unlucky if number not in store.hidden()]
    for copy in image_stripes(store):
        if copy.drive in there and dice.random() < 0.3:
            flip(copy, dice)
    for copy in needle_copies(store, NeedleKind.IMAGE_ROOT):
        if copy.drive in there and dice.random() < 0.3:
            tear(copy, dice)
    for number in there:
        if dice.random() < 0.4:
            store.hide(number)


@pytest.mark.parametrize("seed", range(6))
@trio_test
async def test_whatever_happens_to_the_database_and_to_m_drives(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    store = Store.make(tmp_path / "store0")
    unlucky = dice.sample(range(6), 2)
    expected: dict[bytes, bytes] = {}
    for life in range(1, 9):
        async with store.open() as filesystem:
            assert await files_in(filesystem) == expected
            for _ in range(dice.randrange(30)):
                await change(filesystem, dice)
                if dice.random() < 0.1:
                    await filesystem.parts.imager.write()
                if dice.random() < 0.1:
                    await filesystem.parts.collector.collect()
            expected = await files_in(filesystem)
            left = store.copy(tmp_path / f"store{life}")
        store = left
        for number in store.hidden():
            store.bring_back(number)
        harm(store, unlucky, dice)
    for number in store.hidden():
        store.bring_back(number)
    async with store.open() as filesystem:
        assert await files_in(filesystem) == expected
    assert complaints(store.database) == []


@trio_test
async def test_the_log_stays_bounded_over_thousands_of_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks for images here: the log does, and never holds more than a few times its bound."""
    bound = 256 * limits.KIB
    monkeypatch.setattr(limits, "IMAGE_LOG_BYTES_MIN", bound)
    monkeypatch.setattr(image, "LOOK_S", 0.02)
    monkeypatch.setattr(image, "REST_FACTOR", 0)
    monkeypatch.setattr(collect, "FIRST_S", 0.1)
    monkeypatch.setattr(collect, "COLLECT_S", 0.1)
    monkeypatch.setattr(collect, "LOOK_S", 0.02)
    store = Store.make(tmp_path / "store", 2, 1)

    def log_bytes() -> int:
        """On the drive that has most of the log."""
        return max(sum(path.stat().st_size for path in log_volumes(store, drive)) for drive in range(3))

    sizes = []
    async with store.open() as filesystem:
        await filesystem.mknod(ROOT_INO, b"name", 0o100644, 0, WHO)
        for number in range(5000):
            names = (b"name", b"other name that is longer")
            await filesystem.rename(ROOT_INO, names[number % 2], ROOT_INO, names[1 - number % 2], 0)
            await filesystem.sync()
            if number % 100 == 99:
                sizes.append(log_bytes())
        written = filesystem.parts.imager.images_written
        deleted = filesystem.parts.collector.statistics().volumes_deleted
        assert await check_store(filesystem, data=True) == []
        killed = store.copy(tmp_path / "killed")
    assert written >= 4 and deleted >= 4
    # Two images are kept and the third is due: three times the bound, in needles that are twice as long as what they hold.
    # Unbounded it would be 640 bytes for each commit.
    assert max(sizes) < 7 * bound < 500 * 5000, sizes
    killed.lose_database()
    async with killed.open() as filesystem:
        assert list(await files_in(filesystem)) == [b"name"]


@trio_test
async def test_an_image_that_cannot_be_written_is_tried_again_and_nothing_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.make(tmp_path / "store", 2, 1)
    async with store.open() as filesystem:
        await put(filesystem, b"file", b"content")
        await filesystem.sync()
        with monkeypatch.context() as patch:

            def full(*_: object) -> None:
                raise CiaosError("There is no space for a copy.")

            patch.setattr(filesystem.parts.meta, "copy_for_image", full)
            with pytest.raises(CiaosError):
                await filesystem.parts.imager.write()
        assert filesystem.parts.imager.status().failure is not None
        before = [path for drive in range(3) for path in log_volumes(store, drive)]
        await filesystem.parts.collector.collect()
        assert [path for drive in range(3) for path in log_volumes(store, drive)] == before
        await filesystem.parts.imager.write()
        status = filesystem.parts.imager.status()
        assert status.failure is None and status.sequence is not None
        await trio.lowlevel.checkpoint()
    store.lose_database()
    async with store.open() as filesystem:
        assert await files_in(filesystem) == {b"file": b"content"}
