"""A store is made whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ciaosfs.base.config import DriveLabels, load_config
from ciaosfs.base.errors import CiaosError, StoreError, UsageError
from ciaosfs.drive import local
from ciaosfs.drive.making import check_place
from ciaosfs.offline import mkfs
from ciaosfs.offline.mkfs import make_store, plan_store, weakness_of


def tree(path: Path) -> list[str]:
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*"))


def test_without_drives_six_directories_inside_are_made(tmp_path: Path) -> None:
    store = tmp_path / "store"
    make_store(plan_store(store, [], None, None))
    config = load_config(store)
    assert (config.data_count, config.parity_count) == (4, 2)
    assert [drive.path for drive in config.drives] == [store / "drives" / f"d{n}" for n in range(6)]
    for drive in config.drives:
        opened = local.open_drive(str(drive.path), config.store_id, drive.number)
        assert opened.uuid == drive.uuid
        opened.close()
    assert (store / "meta").is_dir()
    assert store.stat().st_mode & 0o7777 == 0o700


def test_counts_decide_how_many_directories_are_made(tmp_path: Path) -> None:
    assert len(plan_store(tmp_path / "store", [], 2, 1).drives) == 3


def test_drives_of_ones_own_keep_their_paths(tmp_path: Path) -> None:
    drives = [tmp_path / f"disk{number}" / "ciaos" for number in range(4)]
    for drive in drives:
        (drive / "lost+found").mkdir(parents=True)
    make_store(plan_store(tmp_path / "store", drives, 2, 1))
    config = load_config(tmp_path / "store")
    assert [drive.path for drive in config.drives] == drives
    assert not (tmp_path / "store" / "drives").exists()


def test_labels_are_kept_and_what_one_loss_would_cost_is_told(tmp_path: Path) -> None:
    drives = [tmp_path / f"disk{number}" for number in range(3)]
    labels = [DriveLabels("h", name) for name in "abc"]
    config = plan_store(tmp_path / "store", drives, 2, 1, labels)
    make_store(config)
    assert load_config(tmp_path / "store") == config
    assert [drive.labels for drive in config.drives] == labels
    assert weakness_of(config) == "All drives are on one host: losing that host loses the store."
    plain = plan_store(tmp_path / "plain", [], 2, 1)
    make_store(plain)
    assert weakness_of(plain) == "All drives are on one disk: losing that disk loses the store."


def test_an_empty_directory_may_become_a_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    make_store(plan_store(store, [], 1, 1))
    assert load_config(store).parity_count == 1


@pytest.mark.parametrize(
    ("data", "parity", "complaint"),
    [(0, 2, "--data"), (4, -1, "--parity"), (200, 100, "256"), (5, 2, "7 drives and there are 6")],
)
def test_counts_that_cannot_be(tmp_path: Path, data: int, parity: int, complaint: str) -> None:
    drives = [tmp_path / f"d{number}" for number in range(6)]
    with pytest.raises(UsageError, match=complaint):
        plan_store(tmp_path / "store", drives, data, parity)
    assert tree(tmp_path) == []


def test_nothing_is_made_inside_a_drive(tmp_path: Path) -> None:
    make_store(plan_store(tmp_path / "store", [], 2, 1))
    drive = tmp_path / "store" / "drives" / "d0"
    (drive / "volumes" / "y").mkdir()
    (tmp_path / "link").symlink_to(drive / "volumes")
    outside = [tmp_path / f"disk{number}" for number in range(3)]
    for store, drives in (
        (drive / "volumes" / "x", []),
        (drive / "volumes" / "y", []),
        (tmp_path / "link" / "x", outside),
        (tmp_path / "other", [*outside[:2], drive / "x"]),
    ):
        with pytest.raises(UsageError, match=f"lies inside the drive at {drive}"):
            plan_store(store, drives, 2, 1)
    with pytest.raises(UsageError, match="lies inside the drive"):
        check_place(drive / "x", tmp_path / "other", outside)


def test_places_that_cannot_be(tmp_path: Path) -> None:
    store = tmp_path / "store"
    make_store(plan_store(store, [], 1, 1))
    (tmp_path / "full" / "x").mkdir(parents=True)
    (tmp_path / "file").touch()
    fresh, before = tmp_path / "fresh", tree(tmp_path)
    wrong: list[tuple[Path, list[Path], type[CiaosError], str]] = [
        (store, [], StoreError, "already is a ciaosfs store"),
        (tmp_path / "full", [], UsageError, "not empty"),
        (tmp_path / "file", [], UsageError, "not a directory"),
        (tmp_path / "no" / "where", [], UsageError, "does not exist"),
        (fresh, [store / "drives" / "d0", tmp_path / "a"], StoreError, "already is a drive"),
        (fresh, [tmp_path / "full", tmp_path / "a"], UsageError, "not empty"),
        (fresh, [tmp_path / "file", tmp_path / "a"], UsageError, "not a directory"),
        (fresh, [tmp_path / "a", tmp_path / "a"], UsageError, "given twice"),
        (fresh, [fresh, tmp_path / "a"], UsageError, "the store itself"),
        (fresh, [tmp_path / "a", tmp_path / "a" / "b"], UsageError, "inside another"),
        (fresh, [tmp_path / "no" / "where", tmp_path / "a"], UsageError, "does not exist"),
    ]
    for place, drives, kind, complaint in wrong:
        with pytest.raises(kind, match=complaint):
            plan_store(place, drives, 1, 1)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("step", range(7))
def test_a_failure_at_any_step_takes_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    existing = tmp_path / "existing"
    existing.mkdir()
    drives = [existing, tmp_path / "new1", tmp_path / "new2"]
    config = plan_store(tmp_path / "store", drives, 2, 1)
    calls = 0
    really_make, really_sync = local.make_drive, mkfs._sync_directory

    def fail_at_step() -> None:
        nonlocal calls
        calls += 1
        if calls == step + 1:
            raise OSError(5, "the disk broke")

    def make_drive(path: str, **arguments: object) -> None:
        really_make(path, **arguments)  # type: ignore[arg-type]
        fail_at_step()

    def sync_directory(path: Path) -> None:
        really_sync(path)
        fail_at_step()

    monkeypatch.setattr(local, "make_drive", make_drive)
    monkeypatch.setattr(mkfs, "_sync_directory", sync_directory)
    try:
        make_store(config)
    except OSError:
        assert tree(tmp_path) == ["existing"]
    else:
        assert step >= 6, "a step that was to fail did not"
        load_config(tmp_path / "store")


def test_a_name_that_toml_cannot_hold_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="configuration file"):
        plan_store(tmp_path / "store", [tmp_path / os.fsdecode(b"\xff"), tmp_path / "b"], 1, 1)
    assert tree(tmp_path) == []
