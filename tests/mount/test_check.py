"""`ciaosfs check` on a mounted store, at rest, under load and harmed, and on the same store unmounted."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.mount import ROOT, MountedStore, environment
from tools.bench.targets import ciaosfs_command


def check(mounted: MountedStore, *options: str, status: int = 0) -> list[dict[str, Any]]:
    """What a check prints, and that it ends with *status*."""
    done = mounted.run("check", str(mounted.store), "--json", *options, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def fill(mounted: MountedStore) -> None:
    dice = random.Random(1)
    for number in range(8):
        (mounted.path / f"large{number}").write_bytes(dice.randbytes(3_000_000))
        (mounted.path / f"small{number}").write_bytes(dice.randbytes(3000))
    (mounted.path / "large0").unlink()
    mounted.sync()


def test_a_sound_store_mounted_and_not(mounted: MountedStore) -> None:
    fill(mounted)
    sound = {"type": "check", "store": str(mounted.store), "data": True, "problems": 0}
    assert check(mounted, "--data") == [sound]
    said = mounted.run("check", str(mounted.path))
    assert said.stdout == f"Store {mounted.store} is consistent.\n"
    mounted.umount()
    assert check(mounted, "--data") == [sound]
    mounted.mount()


def test_check_finds_nothing_under_load(mounted: MountedStore, tmp_path: Path, seed: int) -> None:
    """While files are written, replaced, truncated and deleted all the time, and stripes die and are compacted."""
    writers = []
    for number in range(2):
        directory = mounted.path / f"writer{number}"
        directory.mkdir()
        places = [str(directory), str(tmp_path / f"journal{number}")]
        command = [sys.executable, "-m", "tests.support.journal", *places, str(seed + number)]
        writers.append(subprocess.Popen(command, cwd=ROOT, env=environment()))
    try:
        end = time.monotonic() + 12
        while time.monotonic() < end:
            assert [line["type"] for line in check(mounted, "--data")] == ["check"]
        assert all(writer.poll() is None for writer in writers), "a writer failed by itself"
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()


def test_harm_is_found_and_told_with_its_status(mounted: MountedStore) -> None:
    mounted.expect_log(".*")
    fill(mounted)
    victim = max((mounted.drives()[1] / "volumes").iterdir(), key=lambda path: path.stat().st_size)
    with victim.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(4096))
    *problems, last = check(mounted, status=7)
    assert [problem["type"] for problem in problems] == ["problem"]
    assert "is damaged: there is no needle" in problems[0]["sentence"]
    assert last["problems"] == 1
    said = mounted.run("check", str(mounted.store), check=False)
    assert said.returncode == 7
    assert said.stdout.endswith("has 1 problem.\n")


def test_check_finds_nothing_while_a_drive_is_emptied(mounted: MountedStore, tmp_path: Path) -> None:
    """Shards move, an image is written, the drive is let go; files come and go meanwhile."""
    fill(mounted)
    mounted.run("drive", "add", str(tmp_path / "new"), str(mounted.store))
    command = [*ciaosfs_command(), "drive", "remove", "0", str(mounted.store), "--wait"]
    removal = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    dice = random.Random(2)
    rounds = 0
    try:
        while removal.poll() is None:
            (mounted.path / f"small{rounds % 8}").write_bytes(dice.randbytes(100_000))
            assert [line["type"] for line in check(mounted, "--data")] == ["check"]
            rounds += 1
    finally:
        removal.kill()
        assert removal.wait() == 0
    assert [line["type"] for line in check(mounted, "--data")] == ["check"]
