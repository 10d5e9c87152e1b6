"""Which volumes exist and their descriptors: bounded, never closed under a reader, gone with their drive."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ciaosfs.base.errors import DriveGoneError, ShardDamagedError
from ciaosfs.base.types import VolumeKind
from ciaosfs.drive.local import LocalDrive, make_drive, open_drive, volume_name
from ciaosfs.volume.files import VolumeFiles
from ciaosfs.volume.volume import create_volume

STORE_ID = bytes(range(16))
PATIENCE_S = 20.0


@pytest.fixture
def drive(tmp_path: Path) -> LocalDrive:
    make_drive(str(tmp_path / "drive"), store_id=STORE_ID, number=3)
    drive = open_drive(str(tmp_path / "drive"), STORE_ID, 3)
    for volume_id in range(1, 11):
        create_volume(drive, STORE_ID, volume_id, VolumeKind.DATA).file.close()
    return drive


def files_of(drive: LocalDrive, open_max: int = 4) -> VolumeFiles:
    files = VolumeFiles(STORE_ID, open_max)
    files.attach(drive, drive.names())
    return files


def test_volumes_are_known_by_name_and_opened_when_read(drive: LocalDrive) -> None:
    files = files_of(drive)
    assert files.on_drive(3) == list(range(10, 0, -1)) and files.on_drive(2) == []
    volume = files.get(4)
    assert volume is not None and volume.file is None and files.open_count == 0
    with files.reading(4) as (found, file):
        assert found is volume and volume.file is file
        assert file.size() == 4096
    assert volume.file is not None, "it stays open for the next"
    assert files.superblock(4).kind is VolumeKind.DATA


def test_the_least_used_are_closed_beyond_the_limit_but_none_that_is_in_use(drive: LocalDrive) -> None:
    files = files_of(drive)
    with files.reading(1) as (_, file):
        for volume_id in range(2, 11):
            with files.reading(volume_id):
                pass
        files.trim()
        assert file.size() == 4096
        assert files.open_count == 5
        still_open = [v for v in range(1, 11) if (volume := files.get(v)) and volume.file]
        assert still_open == [1, 7, 8, 9, 10]
    files.trim()
    volume = files.get(1)
    assert files.open_count == 4 and volume is not None and volume.file is None
    with files.reading(1) as (_, file):
        assert file.size() == 4096


def test_a_drive_that_leaves_takes_its_volumes_along_but_not_from_under_a_reader(drive: LocalDrive) -> None:
    files = files_of(drive)
    with files.reading(1) as (volume, file):
        files.detach(3)
        assert files.get(1) is None and volume.file is None
        assert file.size() == 4096
        with pytest.raises(DriveGoneError):
            volume.pin(STORE_ID)
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.size()
    with pytest.raises(DriveGoneError), files.reading(1):
        pass
    files.attach(drive, drive.names())
    with files.reading(1) as (again, _):
        assert again is not volume
    files.forget(1)
    assert files.get(1) is None and again.file is None


def test_a_drive_that_leaves_while_a_file_is_being_opened_does_not_leave_it_open(
    drive: LocalDrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(drive)
    volume = files.get(2)
    assert volume is not None
    opening, go_on = threading.Event(), threading.Event()
    opened = []
    real_open = LocalDrive.open

    def slow_open(self: LocalDrive, name: str, writable: bool = False) -> object:
        opening.set()
        assert go_on.wait(PATIENCE_S)
        opened.append(real_open(self, name, writable))
        return opened[-1]

    monkeypatch.setattr(LocalDrive, "open", slow_open)
    failures = []

    def read() -> None:
        try:
            with files.reading(2):
                pass
        except DriveGoneError as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert opening.wait(PATIENCE_S)
    files.detach(3)  # does not wait for the slow drive
    go_on.set()
    reader.join(PATIENCE_S)
    assert len(failures) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        opened[0].size()
    assert volume.file is None


def test_a_volume_with_a_superblock_that_is_damaged_or_not_its_own_says_so_and_can_be_read(
    drive: LocalDrive, caplog: pytest.LogCaptureFixture
) -> None:
    """Its needles name themselves; nothing that is whole is given up for the first page of its file."""
    volumes = Path(drive.path) / "volumes"
    (volumes / volume_name(1)).write_bytes((volumes / volume_name(2)).read_bytes())
    (volumes / volume_name(3)).write_bytes(b"")
    files = files_of(drive)
    for volume_id in (1, 3):
        with files.reading(volume_id) as (volume, _):
            assert volume.superblock is None
        for _ in range(2):
            with pytest.raises(ShardDamagedError):
                files.superblock(volume_id)
    assert len(caplog.records) == 2, "each once"
    (volumes / volume_name(4)).unlink()
    with pytest.raises(FileNotFoundError), files.reading(4):
        pass
    foreign = VolumeFiles(bytes(16))
    foreign.attach(drive, drive.names())
    with pytest.raises(ShardDamagedError):
        foreign.superblock(5)


def test_a_writing_descriptor_is_its_own(drive: LocalDrive) -> None:
    files = files_of(drive)
    with files.writing(6) as file:
        file.write(4096, [b"x"])
        assert (volume := files.get(6)) and volume.file is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.size()
    with pytest.raises(DriveGoneError), files.writing(77):
        pass
    files.close()
    assert files.volume_count == 0
