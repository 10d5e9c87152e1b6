"""The database is gone and the drives have images of it: which are begun from, and what if they are harmed."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.errors import LogDamagedError
from ciaosfs.base.types import StripeKind, StripeRecord, VolumeKind
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.stripe.layout import Shape
from ciaosfs.stripe.spreading import NeedleSpec
from ciaosfs.stripe.writer import StripeLoad
from tests.support.builders import WHO, Store, complaints, files_in, put, remove
from tests.support.needles import Copy, commit_copies, image_stripes, needle_copies

Files = dict[bytes, bytes]


async def some_files(filesystem: FileSystem, seed: int, count: int = 20) -> Files:
    dice = random.Random(seed)
    files = {b"%d-%d" % (seed, number): dice.randbytes(dice.randrange(200_000)) for number in range(count)}
    for name, data in files.items():
        await put(filesystem, name, data)
    await filesystem.sync()
    return files


async def two_images(tmp_path: Path) -> tuple[Store, Files]:
    """A killed store with an image, some commits, another image, and some commits after it."""
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        await some_files(filesystem, 1)
        await filesystem.parts.imager.write()
        await some_files(filesystem, 2)
        await remove(filesystem, b"1-3")
        await filesystem.parts.imager.write()
        await some_files(filesystem, 3)
        await remove(filesystem, b"2-3")
        await filesystem.sync()
        return store.copy(tmp_path / "killed"), await files_in(filesystem)


def flip(copy: Copy) -> None:
    with copy.path.open("r+b") as file:
        file.seek(copy.offset + copy.length // 2)
        byte = file.read(1)[0]
        file.seek(copy.offset + copy.length // 2)
        file.write(bytes([byte ^ 0x10]))


def tear(copy: Copy) -> None:
    """The needle's second half never arrived."""
    with copy.path.open("r+b") as file:
        file.seek(copy.offset + copy.length // 2)
        file.write(bytes(copy.length - copy.length // 2))


def roots(store: Store) -> list[list[Copy]]:
    """The copies of each image root, oldest image first."""
    copies = sorted(needle_copies(store, NeedleKind.IMAGE_ROOT), key=lambda copy: copy.sequence)
    return [list(group) for _, group in itertools.groupby(copies, key=lambda copy: copy.sequence)]


async def opened_from(store: Store) -> tuple[Files, int | None]:
    """What is found without a database, and the commit of the image that it began from."""
    store.lose_database()
    store.reboot()
    async with store.open() as filesystem:
        sentences = [report for report in filesystem.status().reports if "rebuilt from the image" in report]
        begun = int(sentences[0].split("image of commit ")[1].split()[0]) if sentences else None
        found = await files_in(filesystem)
    assert complaints(store.database) == []
    return found, begun


@trio_test
async def test_without_a_database_the_newest_image_is_begun_from(tmp_path: Path) -> None:
    killed, expected = await two_images(tmp_path)
    newest = roots(killed)[-1]
    assert len({copy.drive for copy in newest}) == 3
    assert await opened_from(killed) == (expected, newest[0].sequence)
    # and again, from what that opening left
    assert (await opened_from(killed))[0] == expected


@pytest.mark.parametrize("lost", list(itertools.combinations(range(6), 2)))
@trio_test
async def test_m_drives_and_the_database_lost_is_nothing_lost(tmp_path: Path, lost: tuple[int, int]) -> None:
    killed, expected = await two_images(tmp_path)
    for number in lost:
        killed.hide(number)
    found, begun = await opened_from(killed)
    assert found == expected
    assert begun is not None


@trio_test
async def test_torn_newest_root_is_the_image_before(tmp_path: Path) -> None:
    killed, expected = await two_images(tmp_path)
    older, newest = roots(killed)
    for copy in newest:
        tear(copy)
    assert await opened_from(killed) == (expected, older[0].sequence)


@trio_test
async def test_a_root_on_one_drive_is_enough(tmp_path: Path) -> None:
    killed, expected = await two_images(tmp_path)
    for copy in roots(killed)[-1][1:]:
        flip(copy)
    assert await opened_from(killed) == (expected, roots(killed)[-1][0].sequence)


@pytest.mark.parametrize("harmed", [1, 3])
@trio_test
async def test_flipped_bytes_in_the_stripes_of_the_newest_image(tmp_path: Path, harmed: int) -> None:
    """One shard more than parity replaces: then it is the image before."""
    killed, expected = await two_images(tmp_path)
    older, newest = roots(killed)
    stripes = image_stripes(killed)
    last = max(copy.sequence for copy in stripes)
    for copy in [copy for copy in stripes if copy.sequence == last][:harmed]:
        flip(copy)
    begun = newest if harmed == 1 else older
    assert await opened_from(killed) == (expected, begun[0].sequence)


@trio_test
async def test_without_any_image_the_whole_log_is_applied(tmp_path: Path) -> None:
    killed, expected = await two_images(tmp_path)
    for group in roots(killed):
        for copy in group:
            flip(copy)
    assert await opened_from(killed) == (expected, None)


@trio_test
async def test_no_image_and_a_gap_in_the_log_is_said(tmp_path: Path) -> None:
    killed, _ = await two_images(tmp_path)
    for copy in commit_copies(killed):
        if copy.sequence == 2:
            flip(copy)
    for group in roots(killed):
        for copy in group:
            tear(copy)
    with pytest.raises(LogDamagedError):
        await opened_from(killed)


@trio_test
async def test_two_images_are_kept_and_the_stripes_of_older_ones_given_back(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        expected = await some_files(filesystem, 1)
        for number in range(5):
            await put(filesystem, b"n", b"%d" % number)
            await filesystem.parts.imager.write()
        await filesystem.sync()
        while filesystem._reclaimer.stripes_discarded < 3:
            await filesystem._reclaimer.wait_discarded()
            await filesystem._committer.commit_anyway()
        kept = filesystem._meta.images.all()
        assert len(kept) == 2
        assert filesystem.parts.imager.images_written == 5
    assert complaints(store.database) == []
    assert await opened_from(store) == ({**expected, b"n": b"4"}, kept[0].sequence)


@trio_test
async def test_an_image_is_written_while_files_change_and_shows_one_moment(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store")
    async with store.open() as filesystem:
        filesystem.parts.imager.demand()
        for seed in range(6):
            await some_files(filesystem, seed, count=5)
            filesystem.parts.imager.demand()
        await filesystem.parts.imager.write()
        expected = await files_in(filesystem)
        killed = store.copy(tmp_path / "killed")
    assert (await opened_from(killed))[0] == expected


@trio_test
async def test_a_copy_that_a_crash_left_beside_the_database_is_no_obstacle(tmp_path: Path) -> None:
    store = Store.make(tmp_path / "store")
    store.database.with_name(store.database.name + "-image").write_bytes(b"half a copy")
    async with store.open() as filesystem:
        expected = await some_files(filesystem, 1)
        await filesystem.parts.imager.write()
        assert not store.database.with_name(store.database.name + "-image").exists()
    assert (await opened_from(store))[0] == expected
    assert not store.database.with_name(store.database.name + "-restored").exists()


@pytest.mark.parametrize("payload", ["hot", "coded"])
@trio_test
async def test_shards_that_all_moved_after_the_root_are_followed(tmp_path: Path, payload: str) -> None:
    """As drains of one drive after the other would move them, with the old places given back."""
    store = Store.make(tmp_path / "store", data_count=2, parity_count=1, spare=1)
    async with store.open() as filesystem:
        await some_files(filesystem, 1)
        ino = await put(filesystem, b"heavy", b"")
        for number in range(5 if payload == "coded" else 0):
            value = random.Random(number).randbytes(60_000)
            await filesystem.setxattr(ino, b"user.%d" % number, value, WHO)
        await filesystem.parts.imager.write()
        image = filesystem._meta.images.all()[0]
        for stripe_id in range(image.first_stripe, image.last_stripe + 1):
            stripe = filesystem._meta.stripes.load(stripe_id)
            if stripe is not None and stripe.kind is StripeKind.IMAGE:
                assert (stripe.data_count == 1) == (payload == "hot")
                await move(filesystem, stripe)
        expected = await files_in(filesystem)
        killed = store.copy(tmp_path / "killed")
    assert await opened_from(killed) == (expected, image.sequence)


async def move(filesystem: FileSystem, stripe: StripeRecord) -> None:
    """Write the shards of a stripe once more, let the metadata point there, and give the old places back."""
    chunks, meta = filesystem._chunks, filesystem._meta
    payload = await chunks.read(stripe, 0, stripe.payload_bytes)
    kind = VolumeKind.LOG if stripe.data_count == 1 else VolumeKind.DATA
    shape = Shape(stripe.data_count, stripe.parity_count, stripe.payload_bytes, stripe.shard_bytes, kind)
    spec = NeedleSpec(NeedleKind.SHARD, stripe.stripe_id, stripe.kind, shape)
    drives = [drive.number for drive in filesystem.status().drives]
    written = await chunks._spreader.spread(
        spec,
        StripeLoad([payload], shape),
        lambda count, tried, _: [number for number in drives if number not in tried][:count],
    )
    for needle in written:
        meta.stripes.put_shard(stripe.stripe_id, needle.place)
    await filesystem.sync()
    await chunks.discard([stripe])
