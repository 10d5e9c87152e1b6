"""What a killed daemon leaves mounted does not stand in the way of the next mount; anything else there does."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.mount import MountedStore, detach, is_alive, is_mounted, wait_until


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


def test_a_dead_mount_is_unmounted_while_the_store_is_mounted_elsewhere(
    mounted: MountedStore, tmp_path: Path
) -> None:
    mounted.sync()
    mounted.kill_only()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    try:
        mounted.run("mount", str(mounted.store), str(elsewhere))
        done = mounted.run("umount", str(mounted.path))  # waiting for the living daemon would never end
        assert done.stderr == (
            f"ciaosfs: {mounted.path} is unmounted, the dead mount of a former daemon; "
            f"{mounted.store} stays mounted at {elsewhere}.\n"
        )
        assert not is_mounted(mounted.path)
        mounted.run("sync", str(elsewhere))
        mounted.run("umount", str(elsewhere))
    finally:
        detach(elsewhere)
    mounted.mount()


@pytest.mark.root
def test_a_second_place_of_a_mount_is_unmounted_alone(mounted: MountedStore, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    subprocess.run(["mount", "--bind", str(mounted.path), str(second)], check=True)
    try:
        done = mounted.run("umount", str(second))
    finally:
        detach(second)
    assert (
        done.stderr == f"ciaosfs: {second} is unmounted; {mounted.store} stays mounted at {mounted.path}.\n"
    )
    mounted.sync()


def test_unmounting_a_store_that_was_moved_says_that_changes_may_be_lost(
    mounted: MountedStore, tmp_path: Path
) -> None:
    mounted.expect_log(".")
    (mounted.path / "file").write_text("kept")
    mounted.sync()
    pid = int(mounted.status()["pid"])
    moved = mounted.store.rename(tmp_path / "moved")
    done = mounted.run("umount", str(mounted.path), check=False)
    wait_until(lambda: not is_alive(pid), "the daemon is still there after its mount is gone")
    moved.rename(mounted.store)
    assert done.returncode == 6
    assert "changes may be lost; see ciaosfsd.log" in done.stderr
    assert not is_mounted(mounted.path)
    mounted.mount()
    assert (mounted.path / "file").read_text() == "kept"


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
