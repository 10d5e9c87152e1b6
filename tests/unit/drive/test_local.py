"""Making and opening local drives: what is refused, in which words, and in which order bytes reach the disk."""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ciaosfs.base.errors import CiaosError, DriveGoneError, StoreError, UsageError
from ciaosfs.drive.local import LocalDrive, make_drive, open_drive, volume_name

STORE = bytes(range(16))
NAME = volume_name(1)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "drive"


def make(place: Path, number: int = 0) -> None:
    make_drive(str(place), store_id=STORE, number=number)


def reopen(place: Path, number: int = 0) -> LocalDrive:
    return open_drive(str(place), STORE, number)


def descriptor_count() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_volume_is_named_by_its_id() -> None:
    assert volume_name(0xABC) == "0000000000000abc.vol"
    assert volume_name(2**63 - 1) == "7fffffffffffffff.vol"


# Making


def test_missing_directories_are_made_and_nobody_else_may_look_in(tmp_path: Path) -> None:
    place = tmp_path / "mnt" / "disk1" / "drive"
    make(place)
    drive = reopen(place)
    drive.create(NAME).close()
    drive.close()
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "volumes").stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "volumes" / NAME).stat().st_mode) == 0o600
    assert sorted(path.name for path in place.iterdir()) == ["drive.json", "volumes"]


def test_the_identity_is_readable_by_people(place: Path) -> None:
    identity = make_drive(str(place), store_id=STORE, number=5)
    assert json.loads((place / "drive.json").read_bytes()) == {
        "format": 1,
        "store": "00010203-0405-0607-0809-0a0b0c0d0e0f",
        "drive": str(uuid.UUID(bytes=identity.drive_uuid)),
        "number": 5,
    }


def test_each_drive_gets_a_uuid_of_its_own_unless_one_is_given(tmp_path: Path) -> None:
    first = make_drive(str(tmp_path / "a"), store_id=STORE, number=0)
    second = make_drive(str(tmp_path / "b"), store_id=STORE, number=0)
    third = make_drive(str(tmp_path / "c"), store_id=STORE, number=0, drive_uuid=first.drive_uuid)
    assert first.drive_uuid != second.drive_uuid and first == third


def test_a_fresh_file_system_is_empty_enough(place: Path) -> None:
    (place / "lost+found").mkdir(parents=True)
    make(place)
    reopen(place).close()


def test_a_making_that_a_crash_cut_short_is_taken_up_again(place: Path) -> None:
    (place / "volumes").mkdir(parents=True)
    (place / "drive.json.tmp").write_bytes(b'{"form')
    with pytest.raises(DriveGoneError):
        reopen(place)
    make(place)
    reopen(place).close()
    assert not (place / "drive.json.tmp").exists()


@pytest.mark.parametrize("stranger", ["thesis.tex", "volumes/0000000000000001.vol"])
def test_a_directory_in_use_is_not_taken(place: Path, stranger: str) -> None:
    (place / stranger).parent.mkdir(parents=True)
    (place / stranger).touch()
    with pytest.raises(UsageError, match="give an empty directory"):
        make(place)
    assert not (place / "drive.json").exists()


def test_a_drive_is_not_made_over_a_drive(place: Path) -> None:
    make(place)
    before = (place / "drive.json").read_bytes()
    with pytest.raises(UsageError, match="already is a drive"):
        make(place)
    assert (place / "drive.json").read_bytes() == before


# Opening


def rewrite(place: Path, **fields: Any) -> None:
    identity = place / "drive.json"
    identity.write_text(json.dumps(json.loads(identity.read_bytes()) | fields))


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (lambda place: rewrite(place, store=str(uuid.uuid4())), StoreError, "is a drive of another store"),
        (lambda place: rewrite(place, number=3), StoreError, "is drive 3 of this store, not drive 0"),
        (lambda place: rewrite(place, format=2), StoreError, "format version 2, newer than this"),
        (lambda place: rewrite(place, format="1"), StoreError, "unreadable identity"),
        (lambda place: rewrite(place, format=1e999), StoreError, "unreadable identity"),
        (lambda place: rewrite(place, number=-1), StoreError, "unreadable identity"),
        (lambda place: rewrite(place, number=True), StoreError, "unreadable identity"),
        (lambda place: rewrite(place, store=7), StoreError, "unreadable identity"),
        (lambda place: rewrite(place, drive="x"), StoreError, "unreadable identity"),
        (lambda place: (place / "drive.json").write_bytes(b""), StoreError, "unreadable identity"),
        (lambda place: (place / "drive.json").write_bytes(b"\xff\xfe"), StoreError, "unreadable identity"),
        (lambda place: (place / "drive.json").write_bytes(b"[]"), StoreError, "unreadable identity"),
        (
            lambda place: (place / "drive.json").write_bytes(b"{}" + b" " * 5000),
            StoreError,
            "unreadable identity",
        ),
        (lambda place: (place / "drive.json").write_bytes(b"[" * 4000), StoreError, "unreadable identity"),
        (lambda place: (place / "drive.json").unlink(), DriveGoneError, "drive 0 is not there"),
        (lambda place: place.rename(place.parent / "away"), DriveGoneError, "Drive 0 at .* cannot be opened"),
        (
            lambda place: (place.rename(place.parent / "away"), place.touch()),
            DriveGoneError,
            "Drive 0 at .* cannot be opened",
        ),
        (
            lambda place: ((place / "drive.json").unlink(), (place / "drive.json").symlink_to("/etc/passwd")),
            DriveGoneError,
            "Drive 0 at .* cannot be read",
        ),
    ],
)
def test_what_is_not_the_drive_is_said_in_one_sentence(
    place: Path, spoil: Callable[[Path], object], kind: type[CiaosError], words: str
) -> None:
    make(place)
    spoil(place)
    before = descriptor_count()
    with pytest.raises(kind, match=words) as caught:
        reopen(place)
    assert str(place) in caught.value.message and caught.value.message.endswith(".")
    assert descriptor_count() == before


def test_a_drive_without_its_volumes_is_gone(place: Path) -> None:
    make(place)
    (place / "volumes").rename(place / "elsewhere")
    with (
        closing(reopen(place)) as drive,
        pytest.raises(DriveGoneError, match=r"Drive 0 at .* no directory 'volumes'"),
    ):
        drive.names()


def test_a_relative_path_outlives_a_change_of_directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(place)
    monkeypatch.chdir(place.parent)
    drive = open_drive("drive", STORE, 0)
    monkeypatch.chdir("/")
    assert drive.is_present()
    drive.close()


def test_a_drive_keeps_a_descriptor_and_that_of_its_lock_and_gives_them_back(place: Path) -> None:
    make(place)
    before = descriptor_count()
    drive = reopen(place)
    drive.create(NAME).close()
    drive.open(NAME).close()
    drive.names()
    drive.remove(NAME)
    assert descriptor_count() == before + 2
    drive.close()
    assert descriptor_count() == before


def test_strangers_among_the_volumes_are_not_listed(place: Path) -> None:
    make(place)
    (place / "volumes" / "notes.txt").touch()
    drive = reopen(place)
    assert drive.names() == []
    drive.close()


def test_a_link_is_no_volume(place: Path) -> None:
    make(place)
    (place / "volumes" / NAME).symlink_to("/etc/passwd")
    drive = reopen(place)
    with pytest.raises(OSError):
        drive.open(NAME)
    with pytest.raises(FileExistsError):
        drive.create(NAME)
    drive.close()


# The order in which bytes reach the disk


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made, synced and renamed, in order, by the name of the thing."""
    events: list[str] = []

    def watch(name: str, describe: Callable[..., str | None]) -> None:
        real = getattr(os, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            event = describe(*args, **kwargs)
            if event:
                events.append(event)
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, watched)

    def name_of(descriptor: int) -> str:
        return Path(f"/proc/self/fd/{descriptor}").readlink().name

    def describe_open(path: str, flags: int, *_: Any, **__: Any) -> str | None:
        return f"create {path}" if flags & os.O_CREAT else None

    watch("open", describe_open)
    watch("mkdir", lambda path, *_, **__: f"create {Path(path).name}")
    watch("rename", lambda source, target, **_: f"rename {source} {target}")
    watch("fsync", lambda descriptor: f"sync {name_of(descriptor)}")
    watch("fdatasync", lambda descriptor: f"sync {name_of(descriptor)}")
    return events


def test_a_drive_is_made_in_an_order_that_no_crash_can_tear(tmp_path: Path, order: list[str]) -> None:
    make(tmp_path / "outer" / "drive")
    assert order == [
        "create outer",
        f"sync {tmp_path.name}",
        "create drive",
        "sync outer",
        "create volumes",
        "sync volumes",
        "sync drive",
        "create drive.json.tmp",
        "sync drive.json.tmp",
        "rename drive.json.tmp drive.json",
        "sync drive",
    ]


def test_a_volume_is_on_disk_before_it_is_handed_out(place: Path, order: list[str]) -> None:
    make(place)
    drive = reopen(place)
    order.clear()
    drive.create(NAME).close()
    drive.close()
    assert order == [f"create {NAME}", f"sync {NAME}", "sync volumes"]


@pytest.mark.parametrize("failing", ["fdatasync", "fsync"])
def test_a_volume_that_could_not_be_synced_is_not_left_behind(
    place: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(place)
    drive = reopen(place)
    before = descriptor_count()

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="Input/output error"):
            drive.create(NAME)
    assert drive.names() == []
    assert descriptor_count() == before
    drive.create(NAME).close()
    drive.close()
