"""The configuration file: what mkfs writes is what the others read, and every mistake is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ciaosfs.base.config import (
    CONFIG_NAME,
    DriveConfig,
    DriveLabels,
    StoreConfig,
    check_counts,
    format_config,
    load_config,
    parse_drive,
    parse_labels,
)
from ciaosfs.base.errors import StoreError, UsageError


def make_config(store: Path) -> StoreConfig:
    drives = tuple(
        DriveConfig(number, bytes([number]) * 16, store / "drives" / f"d{number}") for number in range(6)
    )
    return StoreConfig(
        store,
        b"S" * 16,
        4,
        2,
        drives,
        commit_interval_s=2.5,
        compression="none",
        job_share=0.5,
        scrub_period_days=3.5,
        repair_after_s=60.0,
        keep_awake=False,
        next_drive=6,
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    odd = DriveConfig(0, b"\x99" * 16, Path('/somewhere/"quoted" and \\ back'))
    config = replace(config, drives=(odd, *config.drives[1:]))
    (tmp_path / CONFIG_NAME).write_text(format_config(config))
    assert load_config(tmp_path) == config


def test_numbers_may_have_gaps_and_drives_labels(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    labelled = DriveConfig(9, b"\x09" * 16, Path("/mnt/nine"), DriveLabels("node1", "sda"), replaces=4)
    config = replace(config, drives=(*config.drives[:4], config.drives[5], labelled), next_drive=12)
    (tmp_path / CONFIG_NAME).write_text(format_config(config))
    assert load_config(tmp_path) == config


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["shelf=2"], "no label"), (["disk"], "''"), (["disk=a", "disk=b"], "twice"), (["host=a b"], "'a b'")],
)
def test_labels_that_cannot_be(words: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        parse_labels(words)


def test_labels_that_can() -> None:
    assert parse_labels([]) == DriveLabels()
    assert parse_labels(["disk=ata-WD_123", "host=node1.lab"]) == DriveLabels("node1.lab", "ata-WD_123")


@pytest.mark.parametrize(
    ("text", "path", "labels"),
    [
        ("/mnt/a", "/mnt/a", DriveLabels()),
        ("/mnt/a,disk=b", "/mnt/a", DriveLabels("", "b")),
        ("rel,host=h1,disk=wwn:0x5", "rel", DriveLabels("h1", "wwn:0x5")),
        ("/mnt/a,disk=b/c", "/mnt/a,disk=b/c", DriveLabels()),
        ("/mnt/one, two,disk=d", "/mnt/one, two", DriveLabels("", "d")),
    ],
)
def test_a_drive_is_given_with_its_labels(text: str, path: str, labels: DriveLabels) -> None:
    assert parse_drive(text) == (Path(path), labels)


@pytest.mark.parametrize("text", ["", ",disk=a", "/a,shelf=1", "/a,disk=", "/a,disk=a,disk=b"])
def test_a_drive_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError):
        parse_drive(text)


def test_drives_inside_the_store_move_with_it(tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    (before / CONFIG_NAME).write_text(format_config(make_config(before)))
    after = before.rename(tmp_path / "after")
    assert load_config(after).drives[3].path == after / "drives" / "d3"


def test_a_directory_without_a_store_names_mkfs(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="ciaosfs mkfs"):
        load_config(tmp_path)
    with pytest.raises(StoreError, match="not a ciaosfs store"):
        load_config(tmp_path / "missing")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("format = 1", "format = 2", "newer ciaosfs"),
        ("format = 1", "", "format is missing"),
        ("data = 4", "data = 'four'", "no int"),
        ("data = 4", "data = true", "no int"),
        ("data = 4", "data = 7", "add drives"),
        ("job_share = 0.5", "job_share = 0", "between"),
        ("scrub_period_days = 3.5", "scrub_period_days = -1", "between"),
        ("repair_after_s = 60", "repair_after_s = 'soon'", "no float"),
        ("data = 4", "data = = 4", "not valid TOML"),
        ("number = 5", "number = 4", "same number"),
        ("number = 5", "number = -1", "numbers start at 0"),
        ("number = 5", "number = 6", "next_drive must be 7"),
        ("number = 5", "number = 5\nlabels = 'sda'", "labels of drive 5"),
        ("number = 5", "number = 5\nlabels = {shelf = 'a'}", "the label 'shelf'"),
        ("number = 5", "number = 5\nlabels = {disk = ''}", "label disk is ''"),
        ("05050505-0505-0505-0505-050505050505", "04040404-0404-0404-0404-040404040404", "same uuid"),
        ("05050505-0505-0505-0505-050505050505", "five", "no uuid"),
        ("commit_interval_s = 2.5", "commit_interval_s = 0", "between 0.1 and 300"),
        ("keep_awake = false", "keep_awake = 0", "no bool"),
        (
            'compression = "none"',
            'compresion = "none"',
            "'compresion', which is no known name: compression may be",
        ),
        ("data = 4", "data = 4\nnonsense = 1", "'nonsense', which is no known name: there are format, store"),
        (
            "number = 5",
            "number = 5\nlables = {}",
            "drive 5 has 'lables', which is no known name: labels may be",
        ),
        ("number = 5", "number = 5\nkeep_awake = true", "drive 5 has keep_awake, .* above the first"),
        ('compression = "none"', 'compression = "fast"', "one of auto, zstd, none"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    text = format_config(make_config(tmp_path))
    assert old in text
    (tmp_path / CONFIG_NAME).write_text(text.replace(old, new))
    with pytest.raises(StoreError, match=complaint):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("data_count", "parity_count", "drive_count", "complaint"),
    [
        (0, 2, 6, "--data"),
        (4, -1, 6, "--parity"),
        (5, 2, 6, "7 drives"),
        (200, 57, 200, "256"),
        (4, 2, 257, "257 drives"),
    ],
)
def test_counts_that_cannot_be(data_count: int, parity_count: int, drive_count: int, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        check_counts(data_count, parity_count, drive_count)


def test_counts_that_can() -> None:
    check_counts(1, 0, 1)
    check_counts(200, 56, 256)


def test_a_path_that_toml_cannot_hold_is_refused(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    bad = DriveConfig(0, b"\x99" * 16, Path("/a\nb"))
    with pytest.raises(UsageError, match="configuration file cannot hold"):
        format_config(replace(config, drives=(bad, *config.drives[1:])))
