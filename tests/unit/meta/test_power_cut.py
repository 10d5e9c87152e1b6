"""Whatever a power cut leaves of SQLite's files, it is some commit as it was, or known to be useless.

The drives are played by a number: commits up to it are on them. It is never below what a checkpoint was
allowed to copy, except in the test of drives that lie.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ciaosfs.base.errors import LogDamagedError
from ciaosfs.meta import connections, integrity
from ciaosfs.meta.checkpoint import Checkpoint
from ciaosfs.meta.database import Database
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.reader import Reader
from tests.unit.meta.power import Operation, Recorder, recorded
from tests.unit.meta.support import add_file, commit, dump, fresh

Dump = dict[str, list[tuple[Any, ...]]]


@dataclass
class Story:
    """A run with its moments: the rows after each commit, and how far things were after which operation."""

    recorder: Recorder
    dumps: dict[int, Dump] = field(default_factory=dict)
    commits: list[tuple[int, int]] = field(default_factory=list)
    """(operations so far, sequence)"""
    checkpoints: list[tuple[int, int, int, bool]] = field(default_factory=list)
    """(operations when it began, and when it ended, sequence that it may copy, whether a reader was in its
    way)
    """


def tell(path: Path, dice: random.Random, steps: int) -> Story:
    """Commits, checkpoints in between (some while the next commit happens), readers that get in the way."""
    with recorded() as recorder:
        story = Story(recorder)
        meta = fresh(path)
        reader: Reader | None = None
        under_way: tuple[Checkpoint, int, int] | None = None
        for step in range(steps):
            for number in range(dice.randrange(1, 8)):
                add_file(meta, b"file %d of step %d" % (number, step))
            commit(meta)
            sequence = meta.state.load().sequence
            story.dumps[sequence] = dump(meta)
            story.commits.append((len(recorder.operations), sequence))
            if under_way is not None:
                end(story, *under_way, is_hindered=reader is not None)
                under_way = None
            elif dice.random() < 0.4:
                under_way = meta.database.begin_checkpoint(), len(recorder.operations), sequence
                if dice.random() < 0.7:
                    end(story, *under_way, is_hindered=reader is not None)
                    under_way = None
                    if dice.random() < 0.5:
                        add_file(meta, b"pending at step %d" % step)
                    renew(meta, recorder)
            if dice.random() < 0.1:
                if reader is None:
                    reader = meta.reader()
                else:
                    reader.close()
                    reader = None
        if under_way is not None:
            end(story, *under_way, is_hindered=reader is not None)
        if reader is not None:
            reader.close()
        meta.close()
    return story


def end(story: Story, running: Checkpoint, began: int, sequence: int, *, is_hindered: bool) -> None:
    running.run()
    running.finish()
    story.checkpoints.append((began, len(story.recorder.operations), sequence, is_hindered))


def renew(meta: Metadata, recorder: Recorder) -> None:
    if meta.database.renew_transaction():
        meta.database.sync_wal()
        recorder.operations.append(Operation("m-wal"))


def recover(path: Path, on_drives: int) -> tuple[int, Dump] | None:
    """As the file system does it: back until the drives know the commit; None: rebuild from them."""
    try:
        meta = Metadata.open(path)
        while meta.state.load().sequence > on_drives:
            meta.close()
            meta = Metadata.open(path, drop_wal=True)
    except LogDamagedError:
        return None
    try:
        assert meta.quick_check() == []
        with meta.reader() as reader:
            assert list(integrity.check(reader)) == []
        return meta.state.load().sequence, dump(meta)
    finally:
        meta.close()


def cut_power(story: Story, dice: random.Random, directory: Path, *, lying: bool = False) -> bool:
    """One power cut; False when it left something that is taken for a commit and is none."""
    at = dice.randrange(story.commits[0][0], len(story.recorder.operations) + 1)
    synced = max((sequence for began, _, sequence, _ in story.checkpoints if began <= at), default=0)
    copied = max(
        (sequence for _, ended, sequence, hindered in story.checkpoints if ended <= at and not hindered),
        default=0,
    )
    newest = max(sequence for operations, sequence in story.commits if operations <= at)
    on_drives = dice.randrange(1, newest + 1) if lying else dice.randint(max(synced, newest - 1), newest)
    directory.mkdir()
    found = recover(story.recorder.crash(at, dice, directory), on_drives)
    if found is None:
        assert lying or not copied, "a checkpoint was complete, and the database was not good for anything"
        return True
    sequence, content = found
    assert lying or sequence >= copied, "older than what a checkpoint had copied"
    return content == story.dumps[sequence]


@contextmanager
def small_logs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "WAL_RESTART_BYTES", 100_000)
        yield


@pytest.mark.parametrize("seed", range(6))
def test_a_power_cut_leaves_some_commit_as_it_was(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    with small_logs():
        story = tell(tmp_path / "m", dice, 30)
        for number in range(25):
            assert cut_power(story, dice, tmp_path / str(number)), (seed, number)


def test_drives_that_lie_cost_a_rebuild_and_no_more(tmp_path: Path) -> None:
    """They confirmed syncs and lost commits all the same, those that a checkpoint copied among them."""
    dice = random.Random(7)
    with small_logs():
        story = tell(tmp_path / "m", dice, 20)
        for number in range(40):
            assert cut_power(story, dice, tmp_path / str(number), lying=True), number


def test_the_harness_sees_a_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With SQLite left to begin its log anew without syncing, some power cut leaves frames of two logs in
    one.
    """
    monkeypatch.setattr(Database, "_empty_wal", lambda database: True)
    monkeypatch.setattr(Database, "sync_wal", lambda database: None)
    bad = 0
    for seed in range(200):
        dice = random.Random(seed)
        (tmp_path / str(seed)).mkdir()
        with small_logs():
            story = tell(tmp_path / str(seed) / "m", dice, 12)
            for number in range(12):
                try:
                    bad += not cut_power(story, dice, tmp_path / str(seed) / str(number))
                except AssertionError:
                    bad += 1
        if bad:
            return
    pytest.fail("nothing was noticed")
