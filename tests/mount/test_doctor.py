"""`ciaosfs doctor` on real mounts and disks that were made wrong."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.mount import MountedStore, detach, environment
from tools.bench.targets import ciaosfs_command


def doctor(*arguments: str | Path) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """The exit status and what was found, by check."""
    done = subprocess.run(
        [*ciaosfs_command(), "doctor", "--json", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for line in done.stdout.splitlines():
        fields = json.loads(line)
        found.setdefault(fields["check"], []).append(fields)
    assert found, done.stderr
    return done.returncode, found


def problems(found: dict[str, list[dict[str, Any]]], *but: str) -> list[str]:
    """The problems; what is wrong with the machine of the tests, and mounts of others, are not the store's."""
    mine = [
        each
        for name, findings in found.items()
        if name not in ("memory", "mounts", *but)
        for each in findings
    ]
    return [each["sentence"] for each in mine if each["level"] == "problem"]


def test_well_then_a_drive_away_then_the_daemon_dead(mounted: MountedStore) -> None:
    (mounted.path / "file").write_bytes(os.urandom(1 << 20))
    mounted.sync()
    _, found = doctor(mounted.path)
    assert problems(found) == []
    assert any(f"{mounted.path} answers." in each["sentence"] for each in found["mounts"])
    assert (
        found["stripes"][0]["level"] == "ok"
        and "any 2 more drives may fail" in found["stripes"][0]["sentence"].lower()
    )

    mounted.expect_log("drive|Drive")
    away = mounted.drives()[1].rename(mounted.store / "away")
    status, found = doctor(mounted.path)
    assert status == 1 and f"It is not at {mounted.drives()[1]}." in problems(found)
    away.rename(mounted.drives()[1])

    mounted.kill_only()
    status, found = doctor(mounted.store)
    assert status == 1
    (dead,) = [each for each in found["mounts"] if str(mounted.path) in each["sentence"]]
    assert dead["level"] == "problem" and "dead mount" in dead["sentence"]
    assert f"ciaosfs mount {mounted.store} {mounted.path}" in dead["remedy"]
    assert "killed" in found["last mount"][0]["sentence"]
    assert "has died" in found["daemon"][0]["sentence"]
    mounted.mount()


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,nr_inodes=100", "none", str(path)], check=True)
    try:
        yield path
    finally:
        detach(path)


@pytest.mark.root
def test_a_full_disk_a_read_only_one_and_one_without_inodes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        command = [*ciaosfs_command(), "mkfs", str(tmp_path / "store"), "--data", "1", "--parity", "0"]
        subprocess.run(
            [*command, "--drive", str(disk / "drive")], env=environment(), check=True, capture_output=True
        )
        _, found = doctor(tmp_path / "store")
        assert problems(found) == []
        (disk / "filler").write_bytes(bytes(28 << 20))
        status, found = doctor(tmp_path / "store")
        assert status == 1 and any("It is full" in sentence for sentence in problems(found))
        (disk / "filler").unlink()
        for number in range(100):
            try:
                (disk / f"small{number}").touch()
            except OSError:
                break
        _, found = doctor(tmp_path / "store")
        assert any("inodes are free" in sentence or "fails" in sentence for sentence in problems(found))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        _, found = doctor(tmp_path / "store")
        assert any("fails: Read-only file system" in each["sentence"] for each in found["drive 0"])
