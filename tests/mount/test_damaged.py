"""`ciaosfs status` says how safe the data is, and with --damaged which files are lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess

from tests.support.mount import MountedStore, environment, wait_until
from tools.bench.targets import ciaosfs_command


def safety(mounted: MountedStore) -> str:
    for line in mounted.run("status", str(mounted.path)).stdout.splitlines():
        if line.startswith("Safety"):
            return line.removeprefix("Safety").strip()
    raise AssertionError("status says nothing about safety")


def damaged(mounted: MountedStore, *options: str, status: int) -> bytes:
    command = [*ciaosfs_command(), "status", "--damaged", str(mounted.path), *options]
    done = subprocess.run(command, env=environment(), capture_output=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout


def test_safety_and_the_files_that_are_lost(mounted: MountedStore) -> None:
    mounted.expect_log(".*")
    dice = random.Random(1)
    directory = mounted.path / "directory"
    directory.mkdir()
    names = [b"plain", b"sp ace", b"\xff\n"]
    for name in names:
        with open(os.path.join(os.fsencode(directory), name), "wb") as file:
            file.write(dice.randbytes(3_000_000))
    os.link(directory / "plain", mounted.path / "linked")
    (mounted.path / "empty").touch()
    mounted.sync()
    assert safety(mounted) == "any 2 more drives may fail"
    assert damaged(mounted, status=0) == b""
    for number, expected in ((0, "any 1 more drive may fail; "), (1, "no more drive may fail; ")):
        hide(mounted, number)
        assert safety(mounted).startswith(expected)
        assert damaged(mounted, status=0) == b""
    hide(mounted, 2)
    assert "cannot be read any more ('ciaosfs status --damaged' lists the files)" in safety(mounted)
    below = os.fsencode(mounted.path)
    said = damaged(mounted, status=7)
    for path in (b"/linked", *(b"/directory/" + name for name in names)):
        assert below + path + b"\n" in said
    assert b"empty" not in said
    found = [json.loads(line) for line in damaged(mounted, "--json", status=7).splitlines()]
    assert ["/directory/plain", "/linked"] in [file["paths"] for file in found]
    assert {file["type"] for file in found} == {"damaged"}
    shutil.move(mounted.drives()[2].with_suffix(".away"), mounted.drives()[2])
    wait_until(lambda: mounted.status()["drives"][2]["state"] == "online", "the drive does not come back")
    assert damaged(mounted, status=0) == b""


def hide(mounted: MountedStore, number: int) -> None:
    drive = mounted.drives()[number]
    drive.rename(drive.with_suffix(".away"))
    wait_until(
        lambda: mounted.status()["drives"][number]["state"] == "absent", "the drive is not seen to be away"
    )


def test_volumes_that_vanished_from_drives_that_are_there(mounted: MountedStore) -> None:
    mounted.expect_log(".*")
    (mounted.path / "file").write_bytes(random.Random(1).randbytes(3_000_000))
    mounted.sync()
    mounted.umount()
    for number in range(3):
        victim = max((mounted.drives()[number] / "volumes").iterdir(), key=lambda path: path.stat().st_size)
        victim.unlink()
    mounted.mount()
    assert "cannot be read any more" in safety(mounted)
    assert damaged(mounted, status=7) == os.fsencode(mounted.path / "file") + b"\n"


def test_a_file_whose_shards_rotted_is_listed_after_a_scrub(mounted: MountedStore) -> None:
    mounted.expect_log(".*")
    for name in ("lost", "kept"):
        (mounted.path / name).write_bytes(random.Random(name).randbytes(3_000_000))
        mounted.sync()
    mounted.umount()
    for number in range(3):
        largest = max((mounted.drives()[number] / "volumes").iterdir(), key=lambda path: path.stat().st_size)
        with largest.open("r+b") as file:
            file.seek(4096)  # the first needle: of the file written first
            file.write(b"rotten")
    mounted.mount()
    mounted.run("scrub", "--now", "--wait", str(mounted.path), check=False)
    assert damaged(mounted, status=7) == os.fsencode(mounted.path / "lost") + b"\n"
    assert "1 stripe cannot be read any more" in safety(mounted)
    checked = mounted.run("check", str(mounted.path), "--data", check=False)
    assert checked.returncode == 7
    assert "cannot be read any more" in checked.stdout
