"""Random operations on a real store and on the dumbest model, compared after every one, with crashes and lost drives.

A fixed number of seeds in the suite, each of which does the same in every run. In the environment:
CIAOSFS_MODEL_SEEDS="100-200" or "7,8,9" chooses others, CIAOSFS_MODEL_STEPS how long they are, CIAOSFS_MODEL_SHRINK=1 looks
for the shortest failing run of each that fails and prints it, and CIAOSFS_MODEL_THREADS=1 uses real threads and
real time: it finds more, and does not replay.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio

from ciaosfs.base import limits
from ciaosfs.drive.workers import Workers
from ciaosfs.fs import flush, slicing
from tests.model.machine import Machine, Step
from tests.model.steps import TABLE, draw
from tests.support.inline_workers import InlineWorkers, run_the_same_way

THREADS = bool(os.environ.get("CIAOSFS_MODEL_THREADS"))
STEPS = int(os.environ.get("CIAOSFS_MODEL_STEPS", "150"))


def chosen_seeds() -> list[int]:
    text = os.environ.get("CIAOSFS_MODEL_SEEDS", "0-24")
    seeds: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        seeds += range(int(low), int(high or low) + 1)
    return seeds


def go(machine: Machine, seed: int, steps: list[Step]) -> None:
    if THREADS:
        trio.run(partial(machine.run, steps))
    else:
        run_the_same_way(seed, partial(machine.run, steps))


def make(place: Path, seed: int) -> Machine:
    return Machine(place, seed, TABLE, Workers if THREADS else partial(InlineWorkers, seed))


def fails(seed: int, steps: list[Step]) -> bool:
    with TemporaryDirectory() as name:
        try:
            go(make(Path(name), seed), seed, steps)
        except Exception:  # noqa: BLE001 - any failure is the one we look for
            return True
    return False


def shortest(seed: int, steps: list[Step]) -> list[Step]:
    """Leave out as many steps as can be with the run still failing: ever smaller pieces."""
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            if fails(seed, fewer):
                steps = fewer
            else:
                at += size
        size //= 2
    return steps


def make_steps_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files that are cut short or removed lose their extents one by one, and flights land range by range."""
    monkeypatch.setattr(flush, "RANGES_MAX", 1)
    monkeypatch.setattr(limits, "TRUNCATE_EXTENTS_INLINE", 0)
    monkeypatch.setattr(limits, "SLICE_EXTENTS", 1)
    monkeypatch.setattr(slicing, "LOOK_S", 0.01)


@pytest.mark.parametrize("seed", chosen_seeds())
def test_store_and_model_agree(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed % 2:
        make_steps_small(monkeypatch)
    steps = draw(seed, STEPS)
    machine = make(tmp_path, seed)
    try:
        go(machine, seed, steps)
    except BaseException as error:
        error.add_note(f"seed {seed}: replay with CIAOSFS_MODEL_SEEDS={seed} CIAOSFS_MODEL_STEPS={STEPS}")
        error.add_note("last steps: " + ", ".join(machine.log[-6:]))
        if os.environ.get("CIAOSFS_MODEL_SHRINK"):
            error.add_note(f"shortest failing run: {shortest(seed, steps[: len(machine.log)])}")
        raise
    assert not [record for record in caplog.records if record.exc_info], "a traceback in the log"
