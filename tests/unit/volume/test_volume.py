"""One volume: states, places that never overlap, and when its descriptor is closed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciaosfs.base import limits
from ciaosfs.base.types import VolumeKind
from ciaosfs.codec.needle import needle_align_for, needle_bytes_for
from ciaosfs.codec.superblock import decode_superblock
from ciaosfs.drive.interface import DriveFile
from ciaosfs.drive.local import LocalDrive, make_drive, open_drive, volume_name
from ciaosfs.volume.volume import (
    TRANSITIONS,
    Volume,
    VolumeState,
    continue_volume,
    create_volume,
    write_needle,
)

STORE_ID = bytes(range(16))


@pytest.fixture
def drive(tmp_path: Path) -> LocalDrive:
    make_drive(str(tmp_path / "drive"), store_id=STORE_ID, number=3)
    return open_drive(str(tmp_path / "drive"), STORE_ID, 3)


class Closing:
    """Stands in for a file whose closing is all that matters."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def volume_of(file: object, kind: VolumeKind = VolumeKind.DATA) -> Volume:
    assert hasattr(file, "close")
    stand_in: DriveFile = file  # type: ignore[assignment]
    return Volume(7, 3, kind, stand_in, limits.VOLUME_SUPERBLOCK_BYTES)


@given(st.lists(st.integers(0, 200_000), max_size=30), st.integers(4096, 100_000))
def test_places_follow_each_other_on_their_boundaries(lengths: list[int], tail: int) -> None:
    volume = Volume(7, 3, VolumeKind.DATA, volume_of(Closing()).file, tail)
    end = tail
    for length in lengths:
        offset = volume.take(length)
        assert offset >= end and offset % needle_align_for(length) == 0
        assert offset - end < limits.NEEDLE_ALIGN_LARGE
        end = offset + needle_bytes_for(length)
        assert volume.tail == end


def test_a_volume_takes_no_needle_beyond_its_limit_but_any_as_its_first() -> None:
    volume = volume_of(Closing(), VolumeKind.LOG)
    assert volume.has_room(limits.NEEDLE_PAYLOAD_BYTES_MAX), "a commit may be as large as a log volume"
    volume.take(limits.NEEDLE_PAYLOAD_BYTES_MAX)
    assert not volume.has_room(1)
    volume = volume_of(Closing(), VolumeKind.LOG)
    while volume.has_room(limits.MIB):
        volume.take(limits.MIB)
    assert limits.VOLUME_LOG_BYTES_MAX - 2 * limits.MIB < volume.tail <= limits.VOLUME_LOG_BYTES_MAX


def test_states_change_along_the_table_only() -> None:
    for state in VolumeState:
        for target in VolumeState:
            volume = volume_of(Closing())
            volume.state = state
            if target in TRANSITIONS[state]:
                volume.enter(target)
                assert volume.state is target
            else:
                with pytest.raises(AssertionError):
                    volume.enter(target)
    assert volume_of(Closing()).file is not None
    sealed = volume_of(Closing())
    sealed.enter(VolumeState.SEALED)
    assert not sealed.has_room(1)


def test_the_descriptor_stays_open_until_writes_and_syncs_are_over() -> None:
    file = Closing()
    volume = volume_of(file)
    volume.take(100)
    volume.take(100)
    volume.is_dirty = True
    volume.enter(VolumeState.SEALED)
    volume.wrote()
    assert not file.closed
    volume.wrote()
    assert not file.closed
    volume.is_dirty = False
    volume.close_if_done()
    assert file.closed
    file = Closing()
    volume = volume_of(file)
    volume.hold()
    volume.enter(VolumeState.SEALED)
    assert not file.closed
    volume.wrote()
    assert file.closed


def test_a_new_volume_says_whose_it_is_and_a_continued_one_goes_on_behind_what_is_there(
    drive: LocalDrive,
) -> None:
    volume = create_volume(drive, STORE_ID, 99, VolumeKind.DATA)
    superblock = decode_superblock(volume.file.read(0, 4096), store_id=STORE_ID, volume_id=99)
    assert (superblock.kind, superblock.drive_number, superblock.drive_uuid) == (
        VolumeKind.DATA,
        3,
        drive.uuid,
    )
    assert volume.tail == volume.file.size() == 4096
    volume.file.write(4096, [b"torn"])
    volume.file.close()
    again = continue_volume(drive, 99, VolumeKind.DATA)
    assert again.tail == 8192
    again.file.close()
    with pytest.raises(FileExistsError):
        create_volume(drive, STORE_ID, 99, VolumeKind.DATA)
    with pytest.raises(FileNotFoundError):
        continue_volume(drive, 98, VolumeKind.DATA)
    drive.create(volume_name(97)).close()
    assert continue_volume(drive, 97, VolumeKind.DATA).tail == 4096, "a crash left not even a superblock"


def test_a_needle_is_written_to_its_last_byte(drive: LocalDrive) -> None:
    """Its padding too: what a volume holds is defined, whatever was on the disk before."""
    file = drive.create(volume_name(5))
    head = b"h" * 136
    write_needle(file, 4096, head, [b"abc", b"de"], 5)
    assert file.size() == 4096 + needle_bytes_for(5)
    assert file.read(4096, 10_000) == (head + b"abcde").ljust(needle_bytes_for(5), b"\0")
