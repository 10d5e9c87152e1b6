"""kill -9 in the middle of a write load: the tree is one moment, not before the last fsync, and not torn."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.journal import Tree, apply, check, operations
from tests.support.killing import killed_load
from tests.support.mount import ROOT, MountedStore, environment

ROUNDS = 3
BEHIND = "recovery: 1 commits were applied from the drives' log"
"""A kill between the commit needle and SQLite's commit leaves the database one behind."""


def test_kill_in_the_middle_of_writing(mounted: MountedStore, tmp_path: Path, seed: int) -> None:
    mounted.expect_log(BEHIND)
    dice = random.Random(seed)
    for _ in range(ROUNDS):
        with killed_load(mounted, tmp_path, dice) as load:
            mounted.mount()
        load.check(least=10)


@pytest.mark.parametrize("lost", ["database", "database and two drives"])
def test_kill_and_a_lost_database(mounted: MountedStore, tmp_path: Path, seed: int, lost: str) -> None:
    mounted.expect_log(".*")
    dice = random.Random(seed + 1)
    with killed_load(mounted, tmp_path, dice) as load:
        shutil.rmtree(mounted.store / "meta")
        if "drives" in lost:
            for number in dice.sample(range(6), 2):
                mounted.drives()[number].rename(mounted.drives()[number].with_suffix(".away"))
        mounted.mount()
    load.check(least=10)
    mounted.remount()
    load.check(least=10)


def test_kill_while_two_drives_are_away(mounted: MountedStore, tmp_path: Path, seed: int) -> None:
    mounted.expect_log(".*")
    dice = random.Random(seed + 2)
    for number in dice.sample(range(6), 2):
        mounted.drives()[number].rename(mounted.drives()[number].with_suffix(".away"))
    with killed_load(mounted, tmp_path, dice) as load:
        mounted.mount()
    load.check(least=10)


def test_a_second_kill_during_the_first_seconds_after_a_kill(
    mounted: MountedStore, tmp_path: Path, seed: int
) -> None:
    mounted.expect_log(BEHIND)
    dice = random.Random(seed + 3)
    with killed_load(mounted, tmp_path, dice) as load:
        for _ in range(3):
            mounted.mount()
            mounted.kill()
        mounted.mount()
    load.check(least=10)


def test_the_checker_finds_a_lost_write_and_a_torn_one(tmp_path: Path) -> None:
    """On a plain directory, with a journal that promises what is then taken back."""
    directory, journal = tmp_path / "files", tmp_path / "journal"

    def fresh(last: int, synced: int) -> None:
        """The state after operation *last*, and a journal that says *synced* was promised."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        tree: Tree = {}
        for number, operation in enumerate(operations(tree, 7), 1):
            if number > last:
                break
            apply(tree, operation)
        for path in sorted(tree):
            content = tree[path]
            if content is None:
                (directory / path).mkdir()
        for path, content in tree.items():
            if content is not None:
                (directory / path).write_bytes(content)
        journal.write_text(f"synced {synced}\nbegin 60\n")

    fresh(50, 40)
    assert check(directory, journal, 7, {}) == (40, 50, 60)
    fresh(39, 50)
    with pytest.raises(AssertionError, match="no state from 50"):
        check(directory, journal, 7, {})
    fresh(50, 40)
    victim = max(directory.rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(AssertionError, match="no state from 40"):
        check(directory, journal, 7, {})


def test_the_writer_does_what_its_model_says(tmp_path: Path) -> None:
    """Stopped anywhere on a plain directory, the tree is the last state of the model or the one before it."""
    directory, journal = tmp_path / "files", tmp_path / "journal"
    directory.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.journal", directory, journal, "5"], cwd=ROOT, env=environment()
    )
    time.sleep(1.0)
    process.kill()
    process.wait(30)
    synced, moment, begun = check(directory, journal, 5, {})
    assert moment >= begun - 1 >= 10 and synced > 0


def test_the_crash_loop_in_short(tmp_path: Path) -> None:
    """`python -m tools.crashloop` kills some hundred times; here it does so four times."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.crashloop", "--times", "4", "--seed", "5", "--in", tmp_path],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["type"] for line in lines] == ["kill"] * 4 + ["crashloop"]
    assert lines[-1]["kills"] == 4 and lines[-1]["operations"] > 0
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"
