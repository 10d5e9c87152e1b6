"""A store without its daemon: each check is made to fail on a real store."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from ciaosfs.base.config import StoreConfig, load_config
from ciaosfs.base.log import LOG_NAME
from ciaosfs.client import storelock
from ciaosfs.client.storelock import Ending, Holder
from ciaosfs.doctor import drives, stores
from ciaosfs.doctor.examine import examine
from ciaosfs.doctor.finding import Finding, Level
from ciaosfs.offline.mkfs import make_store, plan_store

NOW_NS = 1_790_000_000 * 10**9


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    store = tmp_path / "store"
    make_store(plan_store(store, [], 4, 2))
    return load_config(store)


def of(config: StoreConfig, name: str, **changes: int) -> Finding:
    return next(found for found in drives.check_drives(config) if found.check == name and found.level != "ok")


def test_a_new_store_is_well_but_for_its_one_disk(config: StoreConfig) -> None:
    found = [*stores.check_store(config, NOW_NS, None), *drives.check_drives(config)]
    assert [finding for finding in found if finding.level is Level.PROBLEM] == []
    assert [finding.check for finding in found if finding.level is Level.WARNING] == ["disks"]
    assert not list(config.path.rglob("*probe*"))


@pytest.mark.parametrize("name", ["", "ciaosfs.toml", "drives/d3"])
def test_what_others_may_write_is_told(config: StoreConfig, name: str) -> None:
    (config.path / name).chmod(0o777)
    found = stores.check_permissions(config)
    assert found.level is Level.PROBLEM and found.remedy == f"'chmod go-w {config.path / name}'."


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_another_users_store_is_told(config: StoreConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(config.path, 12345, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert "belongs to user 12345" in stores.check_permissions(config).sentence


def test_how_the_last_mount_ended_is_told(config: StoreConfig) -> None:
    assert stores.check_last_mount(config.path).sentence == "The store has not been mounted yet."
    with storelock.hold(config.path) as lock:
        lock.announce(Holder(os.getpid(), "/mnt/nowhere"))
        held = stores.check_last_mount(config.path)
        assert held.level is Level.WARNING and "not mounted" in held.sentence
    killed = stores.check_last_mount(config.path)
    assert killed.level is Level.WARNING and "killed" in killed.sentence
    for ending, level in ((Ending(1, "The drives are full."), Level.PROBLEM), (Ending(0), Level.OK)):
        with storelock.hold(config.path) as lock:
            lock.end(ending)
        found = stores.check_last_mount(config.path)
        assert found.level is level and ending.message in found.sentence


@pytest.mark.parametrize(
    ("now_ns", "commit_ns", "level", "words"),
    [
        (NOW_NS, None, Level.OK, ""),
        (NOW_NS, NOW_NS - 7200 * 10**9, Level.OK, "2 h after the last commit"),
        (NOW_NS, NOW_NS + 10**9, Level.OK, ""),
        (NOW_NS, NOW_NS + 7200 * 10**9, Level.PROBLEM, "2 h before the last commit: it was set back"),
        (10**9, None, Level.PROBLEM, "never set"),
    ],
)
def test_a_clock_that_went_back_is_told(now_ns: int, commit_ns: int | None, level: Level, words: str) -> None:
    found = stores.check_clock(now_ns, commit_ns)
    assert found.level is level and words in found.sentence


def test_trouble_in_the_log_of_late_is_told(config: StoreConfig) -> None:
    path = config.path / LOG_NAME
    assert stores.check_log(path, NOW_NS).level is Level.OK

    def line(before_s: int, level: str) -> str:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(NOW_NS / 1e9 - before_s))
        return f"{moment},123 {level} ciaosfsd: drive 3 \x1b[31m is away\n"

    path.write_text(line(100_000, "ERROR") + line(60, "INFO") + "Traceback (most recent call last):\n")
    assert stores.check_log(path, NOW_NS).level is Level.OK
    with path.open("a") as file:
        file.write(line(50, "WARNING") + line(40, "ERROR"))
    found = stores.check_log(path, NOW_NS)
    assert found.level is Level.WARNING and found.sentence.startswith("2 lines of trouble")
    assert "\x1b" not in found.sentence and str(path) in found.remedy


def test_a_drive_that_is_missing_is_told(config: StoreConfig) -> None:
    config.drives[2].path.rename(config.path / "gone")
    found = of(config, "drive 2")
    assert found.level is Level.PROBLEM and "It is not at" in found.sentence
    assert "ciaosfs drive replace 2 DIR" in found.remedy


def test_a_drive_that_is_anothers_or_exchanged_is_told(config: StoreConfig, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_store(plan_store(other, [], 4, 2))
    shutil.copy(other / "drives/d1/drive.json", config.drives[1].path)
    assert "another store" in of(config, "drive 1").sentence
    shutil.copy(config.drives[3].path / "drive.json", config.drives[1].path)
    assert "is drive 3" in of(config, "drive 1").sentence
    (config.drives[1].path / "drive.json").write_text("{")
    assert "unreadable identity" in of(config, "drive 1").sentence


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (drives.Probe(0.1, 5.0, 0.1, True, True), "It is slow"),
        (drives.Probe(0.1, 0.1, 0.1, False, True), "has no holes"),
        (drives.Probe(0.1, 0.1, 0.1, True, False), "RWF_NOWAIT"),
    ],
)
def test_a_drive_that_is_slow_or_lacks_something_is_told(found: drives.Probe, words: str) -> None:
    judged = drives.judge_probe("drive 0", Path("/d0"), found)
    assert judged.level is Level.WARNING and words in judged.sentence and judged.remedy


def test_a_drive_that_hangs_is_told(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    monkeypatch.setattr(drives, "probe", lambda path: fifo.read_bytes())
    monkeypatch.setattr(drives, "ANSWER_S", 0.05)
    (found,) = drives.check_drive(config, config.drives[0])
    assert found.level is Level.PROBLEM and "does not answer" in found.sentence
    os.close(os.open(fifo, os.O_WRONLY))  # let the thread go


def test_drives_on_one_disk_and_labelled_ones(config: StoreConfig) -> None:
    assert "All drives are on one disk" in of(config, "disks").sentence


def test_what_may_not_be_looked_at_is_a_finding(config: StoreConfig) -> None:
    (config.path / LOG_NAME).mkdir()  # so reading it fails for root, too
    (found,) = [found for found in stores.check_store(config, NOW_NS, None) if found.level is Level.PROBLEM]
    assert (found.check, found.sentence) == (
        "log",
        f"It cannot be looked at: {config.path / LOG_NAME} Is a directory.",
    )


def test_a_store_that_cannot_be_used_is_a_finding(config: StoreConfig, tmp_path: Path) -> None:
    def last(path: Path) -> Finding:
        return [found for found in examine(path, lambda status: "") if found.check == "store"][-1]

    assert "not a ciaosfs store" in last(tmp_path).sentence
    (config.path / "ciaosfs.toml").write_text("format = 99\n")
    assert last(config.path).level is Level.PROBLEM


def test_findings_can_be_json(config: StoreConfig) -> None:
    from dataclasses import asdict

    for found in drives.check_drives(config):
        assert json.loads(json.dumps(asdict(found)))["check"] == found.check
