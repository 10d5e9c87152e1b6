"""Drives that go away, lie, or fill up, and a database that is lost: the same bytes, or an error, and never
others."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path

import pytest

from tests.support.mount import MountedStore, drop_caches, is_mounted, wait_until
from tests.support.small_disk import small_disk
from tests.support.trees import Node, differences, read_tree

SIZES = (0, 1, 100, 5_000, 16_384, 130_000, 131_072, 1_000_000, 4_194_304, 9_000_000)
ABSENT = r"drive|degraded|missing|shard"
"""What the daemon may warn of when a test takes drives away or damages them."""


def fill(directory: Path, seed: int) -> None:
    """Files of all sizes, random and compressible, with names, links and attributes around them."""
    dice = random.Random(seed)
    directory.mkdir()
    for size in SIZES:
        (directory / f"random{size}").write_bytes(dice.randbytes(size))
        (directory / f"text{size}").write_bytes((b"all work and no play\n" * (size // 21 + 1))[:size])
    (directory / "sub" / "deep").mkdir(parents=True)
    for index in range(100):
        (directory / "sub" / f"small{index}").write_bytes(dice.randbytes(dice.randrange(3000)))
    os.link(directory / "sub" / "small1", directory / "sub" / "deep" / "hard")
    (directory / "soft").symlink_to("sub/small2")
    os.setxattr(directory / "sub", "user.note", b"kept")
    os.utime(directory / "random100", ns=(1, 1_234_567_890_987_654_321))


def read_back(store: MountedStore) -> dict[bytes, Node]:
    """The whole tree, from the drives as far as the kernel lets go of what it has."""
    drop_caches(store.path)
    return read_tree(store.path, times=True)


def states(store: MountedStore) -> dict[int, str]:
    return {drive["number"]: drive["state"] for drive in store.status()["drives"]}


def degraded(store: MountedStore) -> int:
    """Stripes that lack at least one shard."""
    return sum(count for missing, count in store.status()["stripes_by_missing"].items() if int(missing) > 0)


def available(store: MountedStore) -> int:
    """Bytes that statvfs says can be written."""
    status = os.statvfs(store.path)
    return status.f_bavail * status.f_frsize


def take_away(drive: Path) -> None:
    drive.rename(drive.with_name(drive.name + ".away"))


def bring_back(drive: Path) -> None:
    drive.with_name(drive.name + ".away").rename(drive)


def volumes(drive: Path) -> list[Path]:
    return sorted((drive / "volumes").iterdir())


def flip(drive: Path, seed: int, step: int = 1 << 14) -> None:
    """Change one byte in every *step* bytes of every volume of *drive*."""
    dice = random.Random(seed)
    for volume in volumes(drive):
        with volume.open("r+b", buffering=0) as file:
            for start in range(4096, volume.stat().st_size, step):
                place = start + dice.randrange(step)
                file.seek(place)
                byte = file.read(1)
                if byte:
                    file.seek(place)
                    file.write(bytes([byte[0] ^ (1 << dice.randrange(8))]))


@pytest.fixture
def filled(mounted: MountedStore, seed: int) -> MountedStore:
    """A mounted store with a synced tree in it."""
    fill(mounted.path / "tree", seed)
    mounted.sync()
    return mounted


def test_any_two_drives_may_go_while_mounted(filled: MountedStore, seed: int) -> None:
    filled.expect_log(ABSENT)
    expected = read_back(filled)
    gone = random.Random(seed).sample(range(6), 2)
    for number in gone:
        take_away(filled.drives()[number])
    assert not differences(expected, read_back(filled))
    wait_until(lambda: all(states(filled)[n] != "online" for n in gone), "status does not see the drives go")

    fill(filled.path / "later", seed + 1)
    filled.sync()
    expected = read_back(filled)
    assert degraded(filled) > 0, "stripes were written without two drives and status counts none"

    filled.remount()
    assert all(states(filled)[n] != "online" for n in gone)
    assert not differences(expected, read_back(filled))
    (filled.path / "more").write_bytes(b"still writing")
    filled.remount()
    assert (filled.path / "more").read_bytes() == b"still writing"

    for number in gone:
        bring_back(filled.drives()[number])
    wait_until(lambda: set(states(filled).values()) == {"online"}, "status does not see the drives return")
    (filled.path / "more").unlink()
    assert not differences(expected, read_back(filled))


@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_flipped_byte_in_any_two_drives_changes_nothing(
    filled: MountedStore, seed: int, number: int
) -> None:
    """Every block of two drives is damaged; what is read is right, and is read right again while it is being healed."""
    filled.expect_log(ABSENT)
    expected = read_back(filled)
    pair = [filled.drives()[number], filled.drives()[(number + 1 + seed % 5) % 6]]
    for drive in pair:
        flip(drive, seed)
    assert not differences(expected, read_back(filled)), f"drives {[drive.name for drive in pair]}"
    filled.remount()
    assert not differences(expected, read_back(filled))


def test_swapped_and_cut_volumes_change_nothing(filled: MountedStore) -> None:
    filled.expect_log(ABSENT)
    expected = read_back(filled)
    filled.umount()
    one, other = (volumes(filled.drives()[number]) for number in (1, 4))
    for left, right in zip(one, other, strict=False):
        between = left.with_suffix(".between")
        left.rename(between)
        right.rename(left)
        between.rename(right)
    filled.mount()
    assert not differences(expected, read_back(filled))
    filled.umount()
    for left, right in zip(one, other, strict=False):
        for volume in (left, right):
            os.truncate(volume, volume.stat().st_size // 2)
    filled.mount()
    assert not differences(expected, read_back(filled))


def test_more_damage_than_parity_is_eio_and_never_other_bytes(filled: MountedStore, seed: int) -> None:
    filled.expect_log(".*")
    contents = {p: p.read_bytes() for p in filled.path.rglob("*") if p.is_file() and not p.is_symlink()}
    for number in (0, 2, 5):
        flip(filled.drives()[number], seed, step=4096)
    drop_caches(filled.path)
    refused = 0
    for path, content in contents.items():
        with path.open("rb", buffering=0) as file:
            for start in range(0, max(len(content), 1), 65536):
                try:
                    piece = os.pread(file.fileno(), 65536, start)
                except OSError as error:
                    assert error.errno == errno.EIO, f"{path}: {error}"
                    refused += 1
                else:
                    expected = content[start : start + 65536]
                    assert expected.startswith(piece), f"{path} at {start}: other bytes"
                    refused += len(piece) < len(expected)  # cut short where the bad page begins
    assert refused > 20, "hardly anything was found damaged: the test damages too little"
    (filled.path / "new").write_bytes(b"the mount stays up")
    assert (filled.path / "new").read_bytes() == b"the mount stays up"
    for number in (0, 2, 5):
        flip(filled.drives()[number], seed, step=4096)


def test_a_lost_database_is_rebuilt_by_mount_and_it_says_so(filled: MountedStore) -> None:
    filled.expect_log(r"database|rebuil|recover")
    expected = read_back(filled)
    filled.umount()
    shutil.rmtree(filled.store / "meta")
    (filled.store / "meta").mkdir()
    done = filled.mount()
    assert done.stderr.startswith(
        "ciaosfs: The database was gone or damaged and is rebuilt from the drives: "
    )
    assert not differences(expected, read_back(filled))
    (filled.path / "new").write_bytes(b"and it goes on")
    expected = read_back(filled)
    filled.remount()
    assert not differences(expected, read_back(filled))


@pytest.mark.parametrize("damage", ["removed directory", "garbage", "emptied", "cut"])
def test_a_database_damaged_in_other_ways_is_rebuilt_too(filled: MountedStore, damage: str) -> None:
    filled.expect_log(".*")
    expected = read_back(filled)
    filled.umount()
    database = next(path for path in (filled.store / "meta").iterdir() if path.suffix == ".sqlite")
    if damage == "removed directory":
        shutil.rmtree(filled.store / "meta")
    elif damage == "garbage":
        with database.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(database.stat().st_size - 4096))
    elif damage == "emptied":
        os.truncate(database, 0)
    else:
        os.truncate(database, database.stat().st_size // 2)
    filled.mount()
    assert not differences(expected, read_back(filled))


def test_a_kill_two_lost_drives_and_a_lost_database_together(filled: MountedStore, seed: int) -> None:
    filled.expect_log(".*")
    expected = read_back(filled)
    filled.kill()
    for number in random.Random(seed).sample(range(6), 2):
        take_away(filled.drives()[number])
    shutil.rmtree(filled.store / "meta")
    filled.mount()
    assert not differences(expected, read_back(filled))


def test_three_lost_drives_refuse_to_mount_and_change_nothing(filled: MountedStore) -> None:
    expected = read_back(filled)
    filled.umount()
    for number in (0, 1, 2):
        take_away(filled.drives()[number])
    done = filled.run("mount", str(filled.store), str(filled.path), check=False)
    assert done.returncode != 0 and not is_mounted(filled.path)
    assert done.stderr.count("\n") <= 3 and "drive" in done.stderr, done.stderr
    for number in (0, 1, 2):
        bring_back(filled.drives()[number])
    filled.expect_log("drive")
    filled.mount()
    assert not differences(expected, read_back(filled))


def write_until_full(directory: Path, size: int, dice: random.Random) -> dict[Path, bytes]:
    """Write synced files of *size* bytes until one is refused with ENOSPC; those that were accepted."""
    kept: dict[Path, bytes] = {}
    for index in range(10_000):
        path, data = directory / f"file{index}", dice.randbytes(size)
        try:
            with path.open("xb", buffering=0) as file:
                assert file.write(data) == size
                os.fsync(file.fileno())
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
            return kept
        kept[path] = data
    raise AssertionError("the disk is never full")


@pytest.mark.root
def test_a_full_drive_is_enospc_and_nothing_is_lost(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    drives = [tmp_path / f"drive{number}" for number in range(6)]
    for number in (0, 1, 2, 4, 5):
        drives[number].mkdir()
    arguments = [word for drive in drives for word in ("--drive", str(drive / "ciaos"))]
    with small_disk(drives[3], 48), MountedStore(tmp_path / "ciaosfs", arguments) as store:
        store.expect_log(r"full|space|ENOSPC")
        before = b"written before it was full" * 1000
        (store.path / "before").write_bytes(before)
        (store.path / "dir").mkdir()
        kept = write_until_full(store.path, 1 << 20, dice)
        assert len(kept) > 20, "full long before the drive is"
        drop_caches(store.path)
        for path, data in kept.items():
            assert path.read_bytes() == data
        assert (store.path / "before").read_bytes() == before
        # Full is not broken: rename, chmod and delete still work, and last.
        paths = list(kept)
        paths[0].rename(store.path / "dir" / "renamed")
        paths[2].chmod(0o600)
        store.remount()
        assert (store.path / "dir" / "renamed").read_bytes() == kept.pop(paths[0])
        for path in paths[3 : len(paths) // 2 + 3]:
            path.unlink()
            del kept[path]
        store.sync()
        room = len(paths) // 4 << 20
        wait_until(lambda: available(store) > room, "the space of deleted files does not come back")
        more = write_until_full(store.path / "dir", 1 << 20, dice)
        assert len(more) > len(paths) // 4
        store.remount()
        for path, data in {**kept, **more}.items():
            assert path.read_bytes() == data


@pytest.mark.root
def test_a_store_on_one_small_full_disk_stays_usable(tmp_path: Path, seed: int) -> None:
    """All drives and the database share a disk: what is held back has to serve them all."""
    dice = random.Random(seed)
    with small_disk(tmp_path / "disk", 192), MountedStore(tmp_path / "disk" / "ciaosfs") as store:
        store.expect_log(r"full|space|ENOSPC")
        kept = write_until_full(store.path, 300_000, dice)
        assert len(kept) > 50
        for path in list(kept)[1::2]:
            path.rename(path.with_name(path.name + ".renamed"))
            kept[path.with_name(path.name + ".renamed")] = kept.pop(path)
        for path in list(kept)[::2]:
            path.unlink()
            del kept[path]
        store.remount()
        for path, data in kept.items():
            assert path.read_bytes() == data
        wait_until(lambda: available(store) > 20 << 20, "the space of deleted files does not come back")
        (store.path / "again").write_bytes(dice.randbytes(1 << 20))


@pytest.mark.root
def test_statvfs_tells_the_truth(tmp_path: Path) -> None:
    """On a disk that nobody else uses: what is written disappears from it, coded, and comes back when deleted."""
    with small_disk(tmp_path / "disk", 400), MountedStore(tmp_path / "disk" / "ciaosfs") as store:
        size = 64 << 20
        before = available(store)
        disk = os.statvfs(tmp_path / "disk")
        assert before <= disk.f_bavail * disk.f_frsize * 4 // 6, "more than fits with two shards of parity"
        with (store.path / "big").open("wb") as file:
            file.write(os.urandom(size))
            os.fsync(file.fileno())
        wait_until(lambda: available(store) < before - size * 9 // 10, "what was written is not seen")
        (store.path / "big").unlink()
        store.sync()
        wait_until(lambda: available(store) > before - size // 4, "what was deleted is not seen")
        status = os.statvfs(store.path)
        assert status.f_namemax == 255
        assert 0 < status.f_bavail <= status.f_bfree <= status.f_blocks
        assert status.f_ffree <= status.f_files
