"""What `drive.interface` promises, for every kind of drive. A new back end joins by one entry in DRIVES."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ciaosfs.base.errors import DriveGoneError
from ciaosfs.drive.interface import Drive, DriveFile
from ciaosfs.drive.local import make_drive, open_drive, volume_name
from ciaosfs.drive.pagebuffers import PageBuffers
from tests.support.slow_drive import OPERATIONS, Pace, SlowDrive

STORE = bytes(range(16))
NAME = volume_name(0xABC)
OTHER = volume_name(0xABD)
NOISE = random.Random(1).randbytes(300_000)


def local(directory: Path) -> Drive:
    make_drive(str(directory), store_id=STORE, number=2)
    return open_drive(str(directory), STORE, 2)


SHARED_MEMORY = Path("/dev/shm")


def slow(directory: Path) -> Drive:
    drive = SlowDrive(local(directory), Pace())
    drive.pace.delay_s = dict.fromkeys(OPERATIONS, 0.001)
    return drive


DRIVES: dict[str, Callable[[Path], Drive]] = {"local": local, "local on tmpfs": local, "slow": slow}


@pytest.fixture(params=DRIVES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The directory the drive is in; its parent is the test's own."""
    if "tmpfs" not in request.param:
        yield tmp_path / "drive"
        return
    if not os.access(SHARED_MEMORY, os.W_OK):
        pytest.skip("there is no tmpfs to write to")
    with TemporaryDirectory(dir=SHARED_MEMORY, prefix="ciaosfs-test-") as directory:
        yield Path(directory) / "drive"


@pytest.fixture
def drive(request: pytest.FixtureRequest, place: Path) -> Iterator[Drive]:
    kind = request.node.callspec.params["place"]
    drive = DRIVES[kind](place)
    yield drive
    drive.close()


@pytest.fixture
def file(drive: Drive) -> Iterator[DriveFile]:
    file = drive.create(NAME)
    yield file
    file.close()


# What a drive says of itself


def test_it_knows_who_it_is(drive: Drive, place: Path) -> None:
    assert drive.number == 2
    assert len(drive.uuid) == 16 and any(drive.uuid)
    assert drive.path == str(place)
    assert drive.is_present()


def test_free_space_is_that_of_the_device(drive: Drive, place: Path) -> None:
    free = drive.free()
    assert 0 < free.free_bytes <= free.total_bytes
    assert free.device_id == place.stat().st_dev


# Files


def test_a_created_file_is_empty_listed_and_opens_again(drive: Drive) -> None:
    assert drive.names() == []
    file = drive.create(OTHER)
    assert file.size() == 0
    drive.create(NAME).close()
    file.write(0, [b"content"])
    file.close()
    assert drive.names() == [NAME, OTHER]
    again = drive.open(OTHER)
    assert again.read(0, 100) == b"content"
    again.close()


def test_a_name_is_given_once(drive: Drive, file: DriveFile) -> None:
    file.write(0, [b"kept"])
    with pytest.raises(FileExistsError):
        drive.create(NAME)
    assert file.read(0, 4) == b"kept"


def test_what_is_not_there_cannot_be_opened_or_removed(drive: Drive) -> None:
    with pytest.raises(FileNotFoundError):
        drive.open(NAME)
    with pytest.raises(FileNotFoundError):
        drive.remove(NAME)
    assert drive.names() == []


def test_a_removed_file_is_gone_but_open_ones_go_on(drive: Drive, file: DriveFile) -> None:
    file.write(0, [b"still here"])
    drive.remove(NAME)
    assert drive.names() == []
    assert file.read(0, 10) == b"still here"
    with pytest.raises(FileNotFoundError):
        drive.open(NAME)


def test_a_file_opened_for_reading_cannot_be_written(drive: Drive, file: DriveFile) -> None:
    reader = drive.open(NAME)
    with pytest.raises(OSError):
        reader.write(0, [b"x"])
    reader.close()
    writer = drive.open(NAME, writable=True)
    writer.write(0, [b"x"])
    writer.close()
    assert file.read(0, 9) == b"x"


@pytest.mark.parametrize(
    "name", ["", "x", "../drive.json", "0.vol", NAME.upper(), NAME + "\n", "/" + NAME, NAME + "/"]
)
def test_only_volumes_have_names(drive: Drive, name: str) -> None:
    for call in (drive.create, drive.open, drive.remove):
        with pytest.raises(AssertionError):
            call(name)


# Bytes


def test_buffers_of_any_kind_are_written_one_after_the_other(file: DriveFile) -> None:
    file.write(100, [b"one", bytearray(b"two"), b"", memoryview(b"three")[1:]])
    assert file.size() == 110
    assert file.read(0, 200) == bytes(100) + b"onetwohree"
    file.write(103, [b"TWO"])
    assert file.read(100, 10) == b"oneTWOhree"


def test_nothing_to_write_changes_nothing(file: DriveFile) -> None:
    file.write(1000, [])
    file.write(1000, [b"", b""])
    assert file.size() == 0


def test_more_buffers_than_the_system_takes_at_once(file: DriveFile) -> None:
    parts = [NOISE[at : at + 100] for at in range(0, len(NOISE), 100)]
    assert len(parts) > 2 * 1024
    file.write(7, parts)
    assert file.read(7, len(NOISE)) == NOISE


def test_reads_are_short_only_at_the_end(file: DriveFile) -> None:
    file.write(0, [NOISE])
    for read in (file.read, file.read_nowait):
        for offset, length in (
            (0, len(NOISE)),
            (5, 70_000),
            (len(NOISE) - 5, 100),
            (len(NOISE), 1),
            (10**9, 5),
            (0, 0),
        ):
            found = read(offset, length)
            assert found is None or found == NOISE[offset : offset + length]
            assert read == file.read_nowait or found is not None


def test_reading_past_the_page_cache_gives_what_reading_gives(file: DriveFile) -> None:
    file.write(0, [NOISE])
    buffer = PageBuffers(1, 1 << 20).take()
    assert buffer is not None
    for offset, length in ((0, 4096), (8192, 16_384), (4096, len(NOISE) // 4096 * 4096), (1 << 30, 4096)):
        count = file.read_into(offset, buffer[:length])
        if count is not None:
            wanted = NOISE[offset : offset + length]
            assert count == len(wanted)
            assert bytes(buffer[:count]) == wanted


def test_synced_bytes_are_there_when_opened_anew(drive: Drive, file: DriveFile, place: Path) -> None:
    file.write(0, [NOISE])
    file.sync()
    file.sync()
    drive.close()
    again = open_drive(str(place), STORE, 2)
    reader = again.open(NAME)
    assert reader.read(0, len(NOISE) + 1) == NOISE
    reader.close()
    again.close()


def test_advice_is_only_advice(file: DriveFile) -> None:
    file.write(0, [NOISE])
    file.advise(0, 10**6)
    assert file.read(0, len(NOISE)) == NOISE


def test_punching_gives_whole_pages_back_and_leaves_the_neighbours(file: DriveFile, place: Path) -> None:
    file.write(0, [NOISE])
    file.sync()
    before = (place / "volumes" / NAME).stat().st_blocks
    file.punch(5000, 200_000)
    assert file.size() == len(NOISE)
    assert (place / "volumes" / NAME).stat().st_blocks * 512 <= before * 512 - 190_000
    assert file.read(0, 5000) == NOISE[:5000]
    assert file.read(205_000, 100_000) == NOISE[205_000:]


def test_punching_less_than_a_page_or_past_the_end_is_harmless(file: DriveFile) -> None:
    file.write(0, [NOISE])
    file.punch(4097, 8000)
    file.punch(0, 0)
    file.punch(1 << 30, 1 << 20)
    assert file.read(0, len(NOISE) + 1) == NOISE


def test_reserved_room_does_not_change_the_size(file: DriveFile) -> None:
    file.preallocate(0)
    file.preallocate(1 << 20)
    assert file.size() == 0
    file.write(0, [b"x"])
    assert file.read(0, 100) == b"x"


def test_trimming_gives_back_the_room_that_was_not_used(file: DriveFile, place: Path) -> None:
    file.preallocate(1 << 20)
    file.write(0, [NOISE])
    file.sync()
    file.trim()
    assert (place / "volumes" / NAME).stat().st_blocks * 512 < len(NOISE) + 8192
    assert file.size() == len(NOISE)
    assert file.read(0, len(NOISE) + 1) == NOISE


def test_a_closed_file_does_nothing_more(file: DriveFile) -> None:
    file.close()
    file.close()
    for call in (
        lambda: file.read(0, 1),
        lambda: file.write(0, [b"x"]),
        file.sync,
        file.size,
        file.trim,
        lambda: file.punch(0, 4096),
        lambda: file.advise(0, 1),
        lambda: file.preallocate(1),
    ):
        with pytest.raises(OSError):
            call()


def test_threads_write_and_read_side_by_side(file: DriveFile) -> None:
    def write_and_read(at: int) -> bool:
        part = NOISE[at : at + 3000]
        file.write(at, [part[:1000], part[1000:]])
        return file.read(at, 3000) == part

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write_and_read, range(0, len(NOISE), 3000)))
    assert file.read(0, len(NOISE)) == NOISE


# A drive that goes away


def every_call_by_name_is_refused(drive: Drive) -> None:
    assert not drive.is_present()
    for call in (
        lambda: drive.create(OTHER),
        lambda: drive.open(NAME),
        lambda: drive.remove(NAME),
        drive.names,
        drive.free,
    ):
        with pytest.raises(DriveGoneError):
            call()


def test_renamed_away_it_is_absent_and_gets_no_new_files(drive: Drive, file: DriveFile, place: Path) -> None:
    file.write(0, [b"before"])
    away = place.rename(place.parent / "away")
    every_call_by_name_is_refused(drive)
    assert sorted(path.name for path in (away / "volumes").iterdir()) == [NAME]
    assert not place.exists()
    file.write(6, [b" and after"])
    assert file.read(0, 100) == b"before and after"
    away.rename(place)
    assert drive.is_present()
    assert drive.names() == [NAME]


def test_another_directory_in_its_place_is_not_it(drive: Drive, file: DriveFile, place: Path) -> None:
    place.rename(place.parent / "away")
    make_drive(str(place), store_id=STORE, number=2, drive_uuid=drive.uuid)
    every_call_by_name_is_refused(drive)
    assert list((place / "volumes").iterdir()) == []


def test_without_its_identity_it_is_absent(drive: Drive, file: DriveFile, place: Path) -> None:
    (place / "drive.json").unlink()
    every_call_by_name_is_refused(drive)


def test_closed_it_is_absent(drive: Drive, file: DriveFile) -> None:
    drive.close()
    drive.close()
    every_call_by_name_is_refused(drive)
    file.write(0, [b"files are closed by those who opened them"])


def test_sync_all_takes_along_what_another_descriptor_wrote(drive: Drive) -> None:
    file = drive.create(NAME)
    try:
        file.write(0, [b"not synced by its writer"])
        drive.sync_all()
        assert bytes(file.read(0, 64)) == b"not synced by its writer"
    finally:
        file.close()
