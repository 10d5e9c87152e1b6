"""The one line that says how safe the data is."""

from __future__ import annotations

from typing import Any

import pytest

from ciaosfs.cli.safety import safety_line, spare_drives


def repair(state: str = "running", eta_s: float | None = None, kind: str = "repair") -> dict[str, Any]:
    return {"kind": kind, "state": state, "eta_s": eta_s}


@pytest.mark.parametrize(
    ("by_spare", "by_missing", "jobs", "line"),
    [
        ({}, {"0": 5}, [], "any 2 more drives may fail"),
        ({}, {}, [repair("done")], "any 2 more drives may fail"),
        ({"2": 7, "1": 3}, {"0": 7, "1": 3}, [], "any 1 more drive may fail; 3 stripes miss 1"),
        (
            {"1": 1200, "0": 1},
            {"0": 9, "1": 1200, "2": 1},
            [repair(eta_s=300.0), repair(eta_s=None), repair(eta_s=9.0, kind="scrub")],
            "no more drive may fail; 1,200 stripes miss 1, 1 stripe misses 2; whole again in 5 min",
        ),
        ({"1": 3}, {"1": 3}, [repair()], "any 1 more drive may fail; 3 stripes miss 1; being repaired"),
        (
            {"1": 3},
            {"1": 3},
            [repair("paused")],
            "any 1 more drive may fail; 3 stripes miss 1; their repair is paused",
        ),
        (
            {"-1": 2, "2": 4},
            {"0": 4, "3": 2},
            [],
            "2 stripes cannot be read any more ('ciaosfs status --damaged' lists the files); 2 stripes miss 3",
        ),
        (  # more drives than parity are away: to say that two more may fail would be a mockery
            {"-1": 71},
            {"0": 71},
            [],
            "71 stripes cannot be read any more ('ciaosfs status --damaged' lists the files)",
        ),
    ],
)
def test_safety_line(
    by_spare: dict[str, int], by_missing: dict[str, int], jobs: list[dict[str, Any]], line: str
) -> None:
    assert safety_line(2, by_spare, by_missing, jobs) == line


@pytest.mark.parametrize(
    ("by_spare", "number"),
    [
        ({}, 2),
        ({"2": 7, "1": 0}, 2),
        ({"2": 7, "1": 1}, 1),
        ({"0": 1}, 0),
        ({"-1": 71}, 0),
        ({"-2": 1, "2": 70}, 0),
    ],
)
def test_how_many_drives_may_fail(by_spare: dict[str, int], number: int) -> None:
    assert spare_drives(2, by_spare) == number
