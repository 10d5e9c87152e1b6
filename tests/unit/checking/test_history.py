"""The log behind the database: images in it, what may be missing of it, and that it gives the database that there is."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.checking.check import check_open
from ciaosfs.meta.images import kept_images
from ciaosfs.meta.reader import Reader
from tests.support.builders import Store, put, remove
from tests.support.needles import commit_copies
from tests.unit.checking.support import closed, file_of, fill, flip, shards


@pytest.fixture(scope="module")
def imaged(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with two images of its metadata and commits before, between and behind them; closed, to be copied."""
    store = Store.make(tmp_path_factory.mktemp("history") / "store")

    @trio_test
    async def fill_it() -> None:
        async with store.open() as filesystem:
            await fill(filesystem)
            for number in range(2):
                await filesystem.parts.imager.write()
                await put(filesystem, b"later%d" % number, random.Random(number).randbytes(50_000))
                await filesystem.sync()

    fill_it()
    return store


def images(store: Store) -> list[int]:
    """The commits of the kept images, oldest first."""
    with Reader(store.database) as reader:
        return sorted(image.sequence for image in kept_images(reader))


def damage_commit(store: Store, sequence: int, copies: int) -> None:
    for copy in [copy for copy in commit_copies(store) if copy.sequence == sequence][:copies]:
        flip(copy.path, copy.offset + 200)


@trio_test
async def test_a_sound_store_with_images(imaged: Store, tmp_path: Path) -> None:
    findings = await closed(imaged, data=True)
    assert (findings.problems, findings.notes) == ([], [])
    async with imaged.copy(tmp_path / "store").open() as filesystem:
        findings = await check_open(filesystem, data=True)
        assert (findings.problems, findings.notes) == ([], [])


@trio_test
async def test_nothing_is_wanted_of_the_log_before_the_newest_image(imaged: Store, tmp_path: Path) -> None:
    store = imaged.copy(tmp_path / "store")
    newest = images(store)[-1]
    assert newest > 3
    for sequence in range(1, newest):
        damage_commit(store, sequence, 3)
    findings = await closed(store, data=True)
    assert (findings.problems, findings.notes) == ([], [])


@trio_test
async def test_a_commit_that_is_lost_behind_an_image(imaged: Store, tmp_path: Path) -> None:
    store = imaged.copy(tmp_path / "store")
    newest = images(store)[-1]
    damage_commit(store, newest + 1, 3)
    findings = await closed(store)
    assert len(findings.problems) == 1
    assert findings.problems[0].startswith(
        f"Commit {newest + 1} is not in the drives' log, which does not lead from the image of commit {newest} up to"
    )


@pytest.mark.parametrize(("copies", "said"), [(1, "is whole on 2 of 3 drives only"), (3, "is on no drive.")])
@trio_test
async def test_an_image_whose_root_is_damaged(imaged: Store, tmp_path: Path, copies: int, said: str) -> None:
    store = imaged.copy(tmp_path / "store")
    newest = images(store)[-1]
    for path in [path for drive in range(6) for path in store.volumes(drive)]:
        content = path.read_bytes()
        at = content.find(b"CIAOSIMG")
        found = [at] if at >= 0 else []
        while at >= 0 and (at := content.find(b"CIAOSIMG", at + 1)) >= 0:
            found.append(at)
        for place in found:
            if copies and int.from_bytes(content[place + 32 : place + 40], "little") == newest:
                flip(path, place + 40)
                copies -= 1
    findings = await closed(store)
    assert len(findings.problems) == 1
    assert findings.problems[0].startswith(f"The image of commit {newest} {said}")


@trio_test
async def test_an_image_that_cannot_be_read(imaged: Store, tmp_path: Path) -> None:
    store = imaged.copy(tmp_path / "store")
    stripe = max(shard.stripe_id for shard in shards(store) if shard.kind == 2)
    lost = [shard for shard in shards(store) if shard.stripe_id == stripe][:3]
    for shard in lost:
        flip(file_of(store, shard), shard.offset + 40)
    findings = await closed(store, data=True)
    said = sorted(findings.problems)
    assert len(said) == 5
    assert [sentence.split(" is damaged")[0] for sentence in said[:3]] == sorted(
        f"Shard {shard.shard_index} of stripe {stripe} on drive {shard.drive}" for shard in lost
    )
    assert said[3].startswith(f"Stripe {stripe} cannot be read any more")
    assert said[4].startswith(f"The image of the metadata as of commit {images(store)[-1]} cannot be read: ")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "UPDATE inodes SET mtime_ns = mtime_ns + 1 WHERE ino = 4",
            "Row 4 of table inodes is another one in what the log gives.",
        ),
        (
            "INSERT INTO volumes VALUES (17, 0, 1, 'sealed')",
            "Row 17 of table volumes is in the database, and not in what the log gives.",
        ),
        (
            "DELETE FROM drives WHERE number = 5",
            "Row 5 of table drives is in what the log gives, and not in the database.",
        ),
    ],
)
@trio_test
async def test_a_database_that_is_not_what_the_log_gives(
    imaged: Store, tmp_path: Path, change: str, sentence: str
) -> None:
    store = imaged.copy(tmp_path / "store")
    database = sqlite3.connect(store.database)
    with database:
        database.execute(change)
    database.close()
    assert sentence not in (await closed(store)).problems
    assert sentence in (await closed(store, data=True)).problems


@trio_test
async def test_images_that_are_let_go_meanwhile_are_no_errors(tmp_path: Path) -> None:
    """Images follow each other as fast as they can while the store is checked."""
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        await fill(filesystem)
        for number in range(8):
            filesystem.parts.imager.demand()
            await put(filesystem, b"more", random.Random(number).randbytes(300_000))
            findings = await check_open(filesystem, data=True)
            assert findings.problems == []
            await remove(filesystem, b"more")
        assert filesystem.parts.imager.images_written > 2
