"""A mixed load on a mounted store whose daemon is killed in the middle of it, and what must be there afterwards.

Writers each work in a directory of their own and keep a journal of what they did and what was synced
(`journal.py`): the manifest that the tree is compared with after the next mount. A reader reads whatever is there.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.support.journal import Tree, check, read_tree
from tests.support.mount import ROOT, MountedStore, environment

WRITERS = 2


class Outcome(NamedTuple):
    """What a kill left of one writer's work, as numbers of its operations."""

    synced: int
    """The last one that an fsync had answered for."""
    found: int
    """The one as of which its directory is."""
    begun: int


class Load:
    """Writers that run until the daemon is killed, each in a directory and with a journal of its own."""

    def __init__(self, store: MountedStore, journals: Path, seed: int, writers: int = WRITERS) -> None:
        self.directories = [store.path / f"writer{number}" for number in range(writers)]
        self.journals = [journals / f"journal{number}" for number in range(writers)]
        self.seeds = [seed * writers + number for number in range(writers)]
        self.before: list[Tree] = []
        for directory in self.directories:
            directory.mkdir(exist_ok=True)
            for leftover in directory.rglob(".temporary*"):
                leftover.unlink()
            self.before.append(read_tree(directory))
        store.sync()
        for journal in self.journals:
            journal.unlink(missing_ok=True)
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.journal", directory, journal, str(number)],
                cwd=ROOT,
                env=environment(),
            )
            for directory, journal, number in zip(self.directories, self.journals, self.seeds, strict=True)
        ]

    def wait_begun(self) -> None:
        """Return when every writer has begun its first operation."""
        end = time.monotonic() + 30
        while not all(journal.exists() and journal.stat().st_size for journal in self.journals):
            assert time.monotonic() < end, "a writer does not begin"
            time.sleep(0.01)

    def wait_ended(self) -> None:
        for process in self._processes:
            assert process.wait(60) == 0, "a writer failed by itself"

    def stop(self) -> None:
        """End the writers, whatever they are at."""
        for process in self._processes:
            process.kill()
            process.wait(60)

    def check(self, least: int = 0) -> list[Outcome]:
        """Compare each directory with its journal; each writer must have begun more than `least` operations."""
        found = []
        for number, directory in enumerate(self.directories):
            outcome = Outcome(
                *check(directory, self.journals[number], self.seeds[number], self.before[number])
            )
            print(f"writer {number}: {outcome}", file=sys.stderr)
            assert outcome.begun > least, (
                f"hardly anything was written: {self.journals[number].read_text()[-200:]}"
            )
            found.append(outcome)
        return found


@contextmanager
def killed_load(store: MountedStore, journals: Path, dice: random.Random) -> Iterator[Load]:
    """A load whose daemon is killed after a random while; inside, the store is not mounted."""
    load = Load(store, journals, dice.randrange(10**9))
    load.wait_begun()
    time.sleep(0.5 + dice.random() * 1.5)
    store.kill()
    load.wait_ended()
    yield load


def kill_under_load(store: MountedStore, journals: Path, dice: random.Random, writers: int) -> Load:
    """As `killed_load`, sooner after the load began, while files are read as well."""
    load = Load(store, journals, dice.randrange(10**9), writers)
    try:
        load.wait_begun()
        until = time.monotonic() + 0.05 + dice.random() ** 2 * 1.5
        while time.monotonic() < until:
            _read_something(load, dice)
        store.kill()
        load.wait_ended()
    except BaseException:
        load.stop()
        raise
    return load


def _read_something(load: Load, dice: random.Random) -> None:
    """Files come and go meanwhile; what is read is compared after the kill."""
    with suppress(FileNotFoundError):
        names = sorted(dice.choice(load.directories).rglob("file*"))
        if names and (name := dice.choice(names)).is_file():
            name.read_bytes()
    time.sleep(0.005)
