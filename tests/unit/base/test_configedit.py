"""Drives come into the configuration file and leave it; what a person wrote there stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ciaosfs.base import configedit
from ciaosfs.base.config import (
    CONFIG_NAME,
    DriveConfig,
    DriveLabels,
    StoreConfig,
    format_config,
    load_config,
)
from ciaosfs.base.configedit import KEPT_SUFFIX, add_drive, change_config, remove_drive
from ciaosfs.base.errors import StoreError, UsageError


def drive(number: int, store: Path, **others: object) -> DriveConfig:
    return DriveConfig(number, bytes([number]) * 16, store / "drives" / f"d{number}", **others)  # type: ignore[arg-type]


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    drives = tuple(drive(number, tmp_path) for number in range(6))
    config = StoreConfig(tmp_path, b"S" * 16, 4, 1, drives, next_drive=6)
    (tmp_path / CONFIG_NAME).write_text(format_config(config))
    assert load_config(tmp_path) == config
    return config


def text_of(config: StoreConfig) -> str:
    return (config.path / CONFIG_NAME).read_text()


def test_a_drive_is_added_and_only_its_lines(config: StoreConfig) -> None:
    before = text_of(config)
    new = drive(6, config.path, labels=DriveLabels("rack-2", "sdb"), replaces=2)
    assert change_config(config.path, add_drive(new)) == load_config(config.path)
    assert load_config(config.path) == replace(config, drives=(*config.drives, new), next_drive=7)
    after = text_of(config)
    kept = before.replace("next_drive = 6", "next_drive = 7")
    assert after.startswith(kept)
    assert after[len(kept) :].count("\n") == 7


def test_numbers_of_removed_drives_stay_free(config: StoreConfig) -> None:
    change_config(config.path, remove_drive(5))
    after = load_config(config.path)
    assert [each.number for each in after.drives] == [0, 1, 2, 3, 4]
    assert after.next_drive == 6, "number 5 was given and is not given again"


def test_removing_the_old_drive_forgets_that_another_replaces_it(config: StoreConfig) -> None:
    change_config(config.path, add_drive(drive(6, config.path, replaces=2)))
    change_config(config.path, remove_drive(2))
    after = load_config(config.path)
    assert [each.number for each in after.drives] == [0, 1, 3, 4, 5, 6]
    assert all(each.replaces is None for each in after.drives)


WRITTEN_BY_A_PERSON = """\
# My store; ask Ann before you touch it.
format = 1
store = "53535353-5353-5353-5353-535353535353"
data = 2   # small
parity = 1
  [[ drive ]]   # the old disk
number = 0 # never mind the '#' in its path
uuid = "00000000-0000-0000-0000-000000000000"
path = "/old # disk"  # bought in 2019

# Shelf two.
[[drive]]
path = '/two'
number = 7
uuid = "07070707-0707-0707-0707-070707070707"
# in the middle
labels = { disk = "x" }   # by the window
[[drive]]
number = 3
uuid = "03030303-0303-0303-0303-030303030303"
path = "three"
# the end"""


def comments(text: str) -> list[str]:
    return sorted(line[line.rindex("# ") + 2 :].strip() for line in text.splitlines() if "# " in line)


def test_comments_stay_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / CONFIG_NAME).write_text(WRITTEN_BY_A_PERSON)
    before = load_config(tmp_path)
    assert [each.number for each in before.drives] == [0, 3, 7] and before.next_drive == 8
    for number in (8, 9, 10):
        change_config(tmp_path, add_drive(drive(number, tmp_path)))
    for number in (0, 7, 3):
        change_config(tmp_path, remove_drive(number))
    after = load_config(tmp_path)
    assert [each.number for each in after.drives] == [8, 9, 10] and after.next_drive == 11
    left = comments((tmp_path / CONFIG_NAME).read_text())
    assert set(comments(WRITTEN_BY_A_PERSON)) - set(left) == set()
    assert not (tmp_path / (CONFIG_NAME + KEPT_SUFFIX)).exists(), "the text could be edited"


def test_a_layout_that_cannot_be_edited_is_written_anew_and_kept(config: StoreConfig) -> None:
    tables = [
        f'{{number = {each.number}, uuid = "{each.uuid.hex()}", path = "drives/d{each.number}"}}'
        for each in config.drives
    ]
    text = text_of(config)
    odd = text[: text.index("# The drives.")] + f"drive = [{', '.join(tables)}]\n"
    (config.path / CONFIG_NAME).write_text(odd)
    assert load_config(config.path) == config
    change_config(config.path, remove_drive(1))
    assert [each.number for each in load_config(config.path).drives] == [0, 2, 3, 4, 5]
    assert (config.path / (CONFIG_NAME + KEPT_SUFFIX)).read_text() == odd


def test_what_a_person_broke_is_not_made_worse(config: StoreConfig) -> None:
    broken = text_of(config).replace("parity = 1", "parity = ")
    (config.path / CONFIG_NAME).write_text(broken)
    with pytest.raises(StoreError, match="not valid TOML"):
        change_config(config.path, remove_drive(1))
    assert text_of(config) == broken


def test_a_drive_that_cannot_be_written_down_changes_nothing(config: StoreConfig) -> None:
    before = text_of(config)
    with pytest.raises(UsageError, match="configuration file cannot hold"):
        change_config(config.path, add_drive(DriveConfig(6, b"6" * 16, Path("/a\nb"))))
    assert text_of(config) == before


def test_a_failure_before_the_rename_leaves_the_old_file(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = text_of(config)
    written: list[Path] = []

    def write_half(path: Path, text: str) -> None:
        path.write_text(text[: len(text) // 2])
        written.append(path)
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(configedit, "_write", write_half)
    with pytest.raises(OSError, match="no space"):
        change_config(config.path, remove_drive(1))
    assert text_of(config) == before and written
    monkeypatch.undo()
    change_config(config.path, remove_drive(1))
    assert len(load_config(config.path).drives) == 5, "a draft left over is in nobody's way"


def test_asking_for_what_is_so_already_writes_nothing(config: StoreConfig) -> None:
    stamp = (config.path / CONFIG_NAME).stat()
    change_config(config.path, remove_drive(17))
    assert (config.path / CONFIG_NAME).stat().st_ino == stamp.st_ino
