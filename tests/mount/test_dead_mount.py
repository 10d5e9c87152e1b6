"""What a killed daemon leaves mounted does not stand in the way of the next mount; anything else there does."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.support.mount import MountedStore, detach, is_mounted


def test_mounting_again_takes_the_dead_mount_away(mounted: MountedStore) -> None:
    (mounted.path / "file").write_text("kept")
    mounted.sync()
    held = os.open(mounted.path / "file", os.O_RDONLY)  # in use: nothing but a lazy unmount succeeds
    try:
        mounted.kill_only()
        with pytest.raises(OSError) as refused:
            os.statvfs(mounted.path)
        assert refused.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        done = mounted.mount()
    finally:
        os.close(held)
    assert done.stderr == (
        f"ciaosfs: the daemon of {mounted.store} had died, its dead mount at {mounted.path} was taken away: "
        "mounting its last commit.\n"
    )
    assert (mounted.path / "file").read_text() == "kept"
    mounted.umount()
    assert not is_mounted(mounted.path)
    assert mounted.mount().stderr == ""


def test_a_living_mount_is_left_alone(mounted: MountedStore) -> None:
    pid = mounted.status()["pid"]
    again = mounted.run("mount", str(mounted.store), str(mounted.path), check=False)
    assert again.returncode == 5
    assert "already a mount point" in again.stderr
    assert mounted.status()["pid"] == pid


def test_the_dead_mount_of_another_store_is_left_alone(mounted: MountedStore, tmp_path: Path) -> None:
    other = tmp_path / "other"
    mounted.run("mkfs", str(other))
    mounted.sync()
    mounted.kill_only()
    refused = mounted.run("mount", str(other), str(mounted.path), check=False)
    assert refused.returncode == 5
    assert f"already a mount point (store {mounted.store})" in refused.stderr
    assert is_mounted(mounted.path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    try:  # the store itself can be mounted elsewhere, which takes nothing away
        mounted.run("mount", str(mounted.store), str(elsewhere))
        assert is_mounted(mounted.path)
        mounted.run("umount", str(elsewhere))
    finally:
        detach(elsewhere)
    mounted.mount()
