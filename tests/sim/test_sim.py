"""A store under power cuts, kills and faults of every kind, compared with the model after every opening.

`python -m tests.sim` runs single seeds, and new ones for as long as it is told.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.faults import PLAIN, TABLE
from tests.sim.life import LIVES, Tally, run
from tests.sim.telling import digest
from tests.support.mount import ROOT, environment

CUTS = 1000
GROUPS = 10
CUTS_PER_GROUP = CUTS // GROUPS


def once_failed() -> list[tuple[int, int]]:
    lines = Path(__file__).with_name("seeds.txt").read_text().splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    return [(int(seed), int(lives)) for seed, lives, *_ in words]


@pytest.mark.parametrize("group", range(GROUPS))
def test_after_every_power_cut_the_tree_is_one_that_existed(group: int, tmp_path: Path) -> None:
    """A thousand of them in all, with seeds that are the same in every run."""
    total = Tally()
    seed = group * 1000
    while total.cuts < CUTS_PER_GROUP:
        place = tmp_path / str(seed)
        place.mkdir()
        total.add(run(place, seed, LIVES, TABLE if group % 2 else PLAIN).tally)
        seed += 1
    print(total)
    assert total.syncs > 20 and total.databases_lost > 5 and total.openings_without_drives > 5


@pytest.mark.parametrize(("seed", "lives"), once_failed())
def test_a_seed_that_once_failed(seed: int, lives: int, tmp_path: Path) -> None:
    run(tmp_path, seed, lives, TABLE)


def test_a_seed_gives_the_same_trace_again(tmp_path: Path) -> None:
    traces = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        traces.append(run(tmp_path / name, 7, LIVES, TABLE).world.trace)
    assert len(traces[0]) > 300
    assert traces[0] == traces[1]


@pytest.mark.parametrize("hashes", ["1", "2"])
def test_a_seed_gives_the_same_trace_in_another_process(hashes: str, tmp_path: Path) -> None:
    """Also when Python orders its sets another way."""
    expected = digest(run(tmp_path, 11, LIVES, TABLE).world.trace)
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--seed", "11"],
        cwd=ROOT,
        env={**environment(), "PYTHONHASHSEED": hashes},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"trace {expected}" in done.stdout
