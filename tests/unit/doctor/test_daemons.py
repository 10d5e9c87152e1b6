"""What a daemon says of itself is judged: commits that fail or are late, lost stripes, drives that lag, descriptors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ciaosfs.base.config import load_config
from ciaosfs.doctor.daemons import check_daemon, check_process
from ciaosfs.doctor.finding import Level
from ciaosfs.offline.mkfs import make_store, plan_store


def status(**changes: Any) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "uptime_s": 5.0,
        "commit": {"sequence": 7, "failure": None, "age_s": 1.0},
        "dirty_bytes": 0,
        "stripes_by_spare": {"2": 10},
        "stripes_by_missing": {"0": 10},
        "slow_drives": {"hanging": [], "lagging": []},
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "check", "level", "words"),
    [
        (
            {"commit": {"sequence": 7, "failure": "Full.", "age_s": 1.0}},
            "commits",
            Level.PROBLEM,
            "They fail: Full.",
        ),
        (
            {"commit": {"sequence": 7, "failure": None, "age_s": 99.0}, "dirty_bytes": 1},
            "commits",
            Level.WARNING,
            "data waits",
        ),
        ({"stripes_by_spare": {"-1": 3}}, "stripes", Level.PROBLEM, "So it is."),
        ({"stripes_by_missing": {"0": 1, "1": 3}}, "stripes", Level.WARNING, "So it is."),
        ({"slow_drives": {"hanging": [2], "lagging": [3]}}, "drives' pace", Level.PROBLEM, "2 do not answer"),
        ({"slow_drives": {"hanging": [], "lagging": [3]}}, "drives' pace", Level.WARNING, "3 lag behind"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, changes: dict[str, Any], check: str, level: Level, words: str
) -> None:
    make_store(plan_store(tmp_path / "store", [], 1, 0))
    config = load_config(tmp_path / "store")
    fresh = status(commit={"sequence": 0, "failure": None, "age_s": 1.8e9})
    assert "There was none yet." in [found.sentence for found in check_daemon(config, fresh, lambda _: "")]
    well = list(check_daemon(config, status(), lambda _: "so it is"))
    assert {found.level for found in well} == {Level.OK}
    (found,) = [
        found
        for found in check_daemon(config, status(**changes), lambda _: "so it is")
        if found.level is not Level.OK
    ]
    assert (found.check, found.level) == (check, level)
    assert words in found.sentence and found.remedy


def test_a_daemon_near_its_limit_is_told(tmp_path: Path) -> None:
    own = tmp_path / str(os.getpid())
    (own / "fd").mkdir(parents=True)
    (own / "limits").write_text(
        "Limit   Soft Limit  Hard Limit  Units\nMax open files            10       10     files\n"
    )
    for number in range(9):
        (own / "fd" / str(number)).touch()
    found = check_process(status(), tmp_path)
    assert found.level is Level.WARNING and "9 of 10 descriptors" in found.sentence
