"""kill -9 in the middle of a write load: the tree is one moment, not before the last fsync, and not torn."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.journal import Tree, apply, check, operations, read_tree
from tests.support.mount import ROOT, MountedStore, environment

WRITERS = 2
ROUNDS = 3


class Load:
    """Writers that run until the daemon is killed, each in a directory and with a journal of its own."""

    def __init__(self, store: MountedStore, journals: Path, seed: int) -> None:
        self.directories = [store.path / f"writer{number}" for number in range(WRITERS)]
        self.journals = [journals / f"journal{number}" for number in range(WRITERS)]
        self.seeds = [seed * WRITERS + number for number in range(WRITERS)]
        self.before: list[Tree] = []
        for directory in self.directories:
            directory.mkdir(exist_ok=True)
            for leftover in directory.rglob(".temporary*"):
                leftover.unlink()
            self.before.append(read_tree(directory))
        store.sync()
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.journal", directory, journal, str(number)],
                cwd=ROOT,
                env=environment(),
            )
            for directory, journal, number in zip(self.directories, self.journals, self.seeds, strict=True)
        ]

    def wait_ended(self) -> None:
        for process in self._processes:
            assert process.wait(60) == 0, "a writer failed by itself"

    def check(self) -> None:
        for number in range(WRITERS):
            synced, moment, begun = check(
                self.directories[number], self.journals[number], self.seeds[number], self.before[number]
            )
            print(f"writer {number}: synced {synced}, recovered {moment}, begun {begun}")
            assert begun > 10, f"hardly anything was written: {self.journals[number].read_text()[-200:]}"


@contextmanager
def killed_load(store: MountedStore, tmp_path: Path, dice: random.Random) -> Iterator[Load]:
    """A load whose daemon is killed after a random while; inside, the store is not mounted."""
    load = Load(store, tmp_path, dice.randrange(10**9))
    time.sleep(0.8 + dice.random() * 1.5)
    store.kill()
    load.wait_ended()
    yield load


def test_kill_in_the_middle_of_writing(mounted: MountedStore, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(ROUNDS):
        with killed_load(mounted, tmp_path, dice) as load:
            mounted.mount()
        load.check()


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
    load.check()
    mounted.remount()
    load.check()


def test_kill_while_two_drives_are_away(mounted: MountedStore, tmp_path: Path, seed: int) -> None:
    mounted.expect_log(".*")
    dice = random.Random(seed + 2)
    for number in dice.sample(range(6), 2):
        mounted.drives()[number].rename(mounted.drives()[number].with_suffix(".away"))
    with killed_load(mounted, tmp_path, dice) as load:
        mounted.mount()
    load.check()


def test_a_second_kill_during_the_first_seconds_after_a_kill(
    mounted: MountedStore, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed + 3)
    with killed_load(mounted, tmp_path, dice) as load:
        for _ in range(3):
            mounted.mount()
            mounted.kill()
        mounted.mount()
    load.check()


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
