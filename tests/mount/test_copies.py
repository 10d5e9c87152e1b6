"""Copies of a store beside it: one of them is used at a time, and whoever mounts the other is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.mount import MountedStore

BUSY = 4


@pytest.fixture
def second(tmp_path: Path) -> Path:
    path = tmp_path / "second"
    path.mkdir()
    return path


def test_two_directories_that_name_the_same_drives(tmp_path: Path, second: Path) -> None:
    """Each would drop the other's commits: what one promised with fsync would be gone."""
    drives = [option for name in "abc" for option in ("--drive", str(tmp_path / name))]
    mounted = MountedStore(tmp_path / "base", [*drives, "--data", "2", "--parity", "1"])
    mounted.base.mkdir()
    mounted.mkfs()
    copy = tmp_path / "copy"
    shutil.copytree(mounted.store, copy)
    with mounted.already_made():
        (mounted.path / "file").write_text("kept")
        mounted.sync()
        for command in (
            ["mount", str(copy), str(second)],
            ["check", str(copy)],
            ["recover", "--yes", str(copy)],
        ):
            refused = mounted.run(*command, check=False)
            assert refused.returncode == BUSY, f"{command}: {refused.stdout}{refused.stderr}"
            assert f"rocess {mounted.status()['pid']} " in refused.stderr
        assert not second.is_mount()
        mounted.remount()
        assert (mounted.path / "file").read_text() == "kept"


def test_a_copy_with_its_drives_beside_the_original(tmp_path: Path, second: Path) -> None:
    """Both have one control socket: commands would mean the one and reach the other."""
    mounted = MountedStore(tmp_path / "base")
    mounted.base.mkdir()
    mounted.mkfs()
    copy = tmp_path / "copy"
    shutil.copytree(mounted.store, copy)
    with mounted.already_made():
        refused = mounted.run("mount", str(copy), str(second), check=False)
        assert refused.returncode == BUSY
        assert f"mounted at {mounted.path}, that has the same id as {copy}" in refused.stderr
        assert not second.is_mount()
        mounted.sync()
        mounted.umount()
        mounted.run("mount", str(copy), str(second))
        mounted.run("umount", str(second))
        mounted.mount()
