"""`ciaosfs drive`: what it says and returns, with a daemon whose drives exist in a list alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ciaosfs.base.errors import CiaosError
from ciaosfs.cli import cmd_drive, waiting
from ciaosfs.cli.drivetable import table
from tests.cli.conftest import Ciaosfs

COMMANDS = ("list", "add", "remove", "replace")


@pytest.fixture
def mounted(ciaosfs: Ciaosfs, needs_fuse: None, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mount"
    path.mkdir()
    ciaosfs("mkfs", tmp_path / "store")
    assert ciaosfs("mount", tmp_path / "store", path).status == 0
    yield path
    assert ciaosfs("umount", path).status == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example(ciaosfs: Ciaosfs, name: str) -> None:
    outcome = ciaosfs("drive", name, "--help")
    assert outcome.status == 0 and f"ciaosfs drive {name}" in outcome.out.split("Example:")[1]
    assert "--json" in outcome.out


@pytest.mark.parametrize("name", COMMANDS)
def test_without_a_mount_each_says_how_to_get_one(ciaosfs: Ciaosfs, tmp_path: Path, name: str) -> None:
    store = tmp_path / "store"
    ciaosfs("mkfs", store)
    arguments: dict[str, list[str | Path]] = {
        "list": [store],
        "add": [tmp_path / "new", store],
        "remove": ["1", store],
        "replace": ["1", tmp_path / "new", store],
    }
    outcome = ciaosfs("drive", name, *arguments[name])
    assert outcome.status == 3 and f"'ciaosfs mount {store}'" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.mount
def test_drives_are_listed_added_removed_and_replaced(
    ciaosfs: Ciaosfs, mounted: Path, tmp_path: Path
) -> None:
    listed = ciaosfs("drive", "list", mounted).out.splitlines()
    assert listed[0].split() == ["DRIVE", "STATE", "SHARDS", "HOLDS", "FREE", "TOTAL", "LABELS", "PATH"]
    assert listed[1].split()[:5] == ["0", "online", "7", "7.00", "MiB"]
    added = ciaosfs("drive", "add", f"{tmp_path}/new,disk=x", mounted, "--label", "host=h")
    assert added.out == f"Drive 3 at {tmp_path}/new is in use.\n" and added.status == 0
    drives = [json.loads(line) for line in ciaosfs("drive", "list", mounted, "--json").out.splitlines()]
    assert [drive["type"] for drive in drives] == ["drive"] * 4
    assert drives[3]["labels"] == {"host": "h", "disk": "x"}
    removed = ciaosfs("drive", "remove", "1", mounted, "--wait")
    assert (removed.out, removed.status, removed.err) == ("3 counted.\n", 0, "")
    begun = ciaosfs("drive", "replace", "0", tmp_path / "other", mounted, "--yes")
    assert "Drive 4 at" in begun.out and "Drive 0 is being emptied by job" in begun.out
    answer = json.loads(ciaosfs("drive", "replace", "2", tmp_path / "more", mounted, "--json", "--wait").out)
    assert (answer["number"], answer["replaced"], answer["job"]["state"]) == (5, 2, "done")


@pytest.mark.mount
def test_refusals_are_one_sentence(ciaosfs: Ciaosfs, mounted: Path, tmp_path: Path) -> None:
    for arguments, complaint in (
        (["remove", "9", mounted], "There is no drive 9: 'ciaosfs drive list' shows those there are."),
        (["add", mounted / "inside", mounted], "lies in the mount of this store"),
        (
            ["add", tmp_path / "new", mounted, "--label", "shelf=2"],
            "is no label: give host=NAME or disk=NAME.",
        ),
        (["add", f"{tmp_path}/new,disk=a", mounted, "--label", "disk=b"], "disk is given twice"),
        (["remove", "none", mounted], "is not a valid integer"),
    ):
        outcome = ciaosfs("drive", *arguments)
        assert (outcome.status, outcome.out) == (2, ""), outcome
        assert complaint in outcome.err and outcome.err.count("\n") == 1, outcome.err


class Answers:
    """A connection that tells of one job, a little further with every question."""

    def __init__(self, *jobs: dict[str, object]) -> None:
        self._jobs = list(jobs)

    def call(self, _: str) -> dict[str, object]:
        told = {"id": 7, "done": 1, "total": 2, "unit": "bytes", "message": ""}
        return {"jobs": [{**told, **self._jobs.pop(0)}]}


def test_waiting_says_once_what_the_job_waits_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "LOOK_S", 0)
    stuck: dict[str, object] = {"state": "waiting", "message": "No room."}
    answers = Answers({"state": "running"}, stuck, stuck, {"state": "done", "message": "All moved."})
    job = waiting.wait_for_job(answers, 7, "Emptying drive 1")  # type: ignore[arg-type]
    assert job["message"] == "All moved."
    assert capsys.readouterr().err == "Job 7 is waiting: No room.\n"
    with pytest.raises(CiaosError, match="Job 7 failed: It cannot be"):
        waiting.wait_for_job(
            Answers({"state": "failed", "message": "It cannot be."}),  # type: ignore[arg-type]
            7,
            "Emptying",
        )


def test_mkfs_says_what_one_disk_would_cost(ciaosfs: Ciaosfs, tmp_path: Path) -> None:
    made = ciaosfs("mkfs", tmp_path / "store")
    assert made.out.splitlines()[1] == "All drives are on one disk: losing that disk loses the store."
    arguments = [f"--drive={tmp_path}/d{name},disk={name}" for name in "abc"]
    spread = ciaosfs("mkfs", tmp_path / "spread", *arguments, "--data=2", "--parity=1", "--json")
    assert json.loads(spread.out)["weakness"] is None
    wrong = ciaosfs("mkfs", tmp_path / "wrong", f"--drive={tmp_path}/x,shelf=1")
    assert wrong.status == 2 and "is no label" in wrong.err


class Asked:
    """A connection that answers one question."""

    def call(self, operation: str, **_: object) -> dict[str, object]:
        drive = {"number": 1, "path": "/d1", "state": "online", "shard_bytes": 5 << 20}
        return {"drives": [drive]}


@pytest.mark.parametrize(("answer", "goes_on"), [("y\n", True), ("n\n", False)])
def test_on_a_terminal_a_removal_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, answer: str, goes_on: bool
) -> None:
    @click.command()
    def ask() -> None:
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        cmd_drive._confirm(Asked(), 1, False)  # type: ignore[arg-type]
        click.echo("went on")

    outcome = CliRunner().invoke(ask, input=answer)
    assert "Drive 1 at /d1 is online and holds 5.00 MiB." in outcome.output
    assert ("went on" in outcome.output) is goes_on


def test_a_drive_that_is_being_emptied_says_how_far_it_is() -> None:
    job = {
        **{"id": 7, "kind": "drain", "arguments": {"drive": 1}, "state": "running", "message": ""},
        **{"done": 1 << 30, "total": 4 << 30, "unit": "bytes", "rate": float(1 << 26), "eta_s": 48.0},
    }
    drive = {
        **{"number": 1, "path": "/d1", "state": "online", "draining": True, "labels": {}, "reason": ""},
        **{"shards": 3072, "shard_bytes": 3 << 30, "free": 1 << 30, "total": 8 << 30, "job": job},
    }
    lines = table([drive])
    assert "online, draining" in lines[1] and "3,072" in lines[1]
    assert lines[2] == (
        "Drive 1 is being emptied by job 7 (running): 25% of 4.00 GiB, 64.0 MiB/s, 48.0 s left."
    )
