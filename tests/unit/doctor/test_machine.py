"""Each check of the machine sees what is wrong: made wrong for real where that can be, else told so."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ciaosfs.base.limits import MIB
from ciaosfs.doctor import machine
from ciaosfs.doctor.finding import Finding, Level
from tests.support.mount import environment


def is_wrong(finding: Finding, words: str, level: Level = Level.PROBLEM) -> bool:
    return finding.level is level and words in finding.sentence and bool(finding.remedy)


def test_a_fuse_device_that_is_missing_or_none_is_told(tmp_path: Path) -> None:
    assert is_wrong(machine.check_fuse_device(tmp_path / "fuse"), "does not exist")
    assert is_wrong(machine.check_fuse_device(tmp_path), "cannot be opened")
    (tmp_path / "file").touch()
    assert machine.check_fuse_device(tmp_path / "file").level is Level.OK


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_a_fuse_device_that_may_not_be_opened_is_told(tmp_path: Path) -> None:
    device = tmp_path / "fuse"
    device.touch()
    device.chmod(0o600)
    for directory in (tmp_path, *list(tmp_path.parents)[:3]):
        if directory.name.startswith("pytest"):
            directory.chmod(0o755)
    os.seteuid(65534)
    try:
        assert is_wrong(machine.check_fuse_device(device), "may not be opened")
    finally:
        os.seteuid(0)


def test_fusermount_that_is_missing_or_not_set_user_id_is_told_to_users(tmp_path: Path) -> None:
    assert machine.check_fusermount(str(tmp_path), is_root=True).level is Level.OK
    assert is_wrong(machine.check_fusermount(str(tmp_path), is_root=False), "missing")
    program = tmp_path / "fusermount3"
    program.touch(0o755)
    assert is_wrong(machine.check_fusermount(str(tmp_path), is_root=False), "does not run as root")
    assert machine.check_fusermount(str(tmp_path), is_root=True).level is Level.OK


def test_who_can_use_a_mount_is_told(tmp_path: Path) -> None:
    config = tmp_path / "fuse.conf"
    for content in (None, "#user_allow_other\n", "user_allow_other\n"):
        if content is not None:
            config.write_text(content)
        sentence = machine.check_other_users(config, is_root=False).sentence
        assert ("user_allow_other" in sentence) == (content == "user_allow_other\n")
    assert "everybody" in machine.check_other_users(config, is_root=True).sentence


@pytest.mark.parametrize(("limit", "level"), [(100, "problem"), (1000, "warning"), (4096, "ok")])
def test_few_descriptors_are_told(limit: int, level: str) -> None:
    code = "from ciaosfs.doctor.machine import check_descriptors as c; print(c().level)"
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < limit:
        pytest.skip("this process may not have so many itself")
    done = subprocess.run(
        ["bash", "-c", f'ulimit -n {limit} && exec "$0" -c "$1"', sys.executable, code],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == level


def test_a_kernel_without_what_is_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.check_kernel().level is Level.OK
    monkeypatch.setattr(machine, "_OPENAT2", 100_000)  # a system call that no kernel has
    assert is_wrong(machine.check_kernel(), "lacks openat2")


@pytest.mark.parametrize(
    ("available", "level"), [(100, Level.PROBLEM), (300, Level.WARNING), (2000, Level.OK)]
)
def test_little_memory_is_told(tmp_path: Path, available: int, level: Level) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 9 kB\nMemAvailable: {available * MIB // 1024} kB\n")
    assert machine.check_memory(meminfo).level is level


def test_old_and_missing_libraries_are_told() -> None:
    assert machine.check_libraries().level is Level.OK
    found = machine.compare_libraries({"a": ("1.9", "1.10"), "b": (None, "2"), "c": ("3.1.2", "3.1")})
    assert is_wrong(found, "a 1.9 (1.10 or newer is needed), b is missing (2 or newer is needed).")
