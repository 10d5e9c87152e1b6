"""`ciaosfs doctor`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ciaosfs.cli import output
from ciaosfs.cli.paths import LocalPath
from ciaosfs.cli.safety import safety_line
from ciaosfs.doctor.examine import examine
from ciaosfs.doctor.finding import Finding, Level

_COLORS = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}


@click.command("doctor")
@click.argument(
    "path", metavar="[STORE|MOUNTPOINT]", type=LocalPath(path_type=Path, readable=False), required=False
)
@click.option("--quiet", "-q", is_flag=True, help="Print warnings and problems alone.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each check.")
def command(path: Path | None, quiet: bool, as_json: bool) -> int:
    """Look at this machine and a store, and say what is wrong and how to mend it.

    STORE is a store's directory, mounted or not, MOUNTPOINT any path in its mount; without one, the stores that you have
    mounted are looked at. Each check is one line: ok, a warning, or a problem, with what to do. Each drive gets a small
    write, sync and read, which leaves nothing behind. The status is 1 when there is a problem.

    \b
    Example:
      ciaosfs doctor
      ciaosfs doctor /srv/store -q
    """
    counts: Counter[Level] = Counter()
    for finding in examine(path, _safety):
        counts[finding.level] += 1
        if quiet and finding.level is Level.OK:
            continue
        if as_json:
            output.print_json("check", asdict(finding))
        else:
            output.print_colored(finding.level, _COLORS[finding.level], _line(finding))
    if not as_json:
        output.talk(_summary(counts))
    return 1 if counts[Level.PROBLEM] else 0


def _line(finding: Finding) -> str:
    return f"{'':{8 - len(finding.level)}}{finding.check:<12} {finding.sentence} {finding.remedy}".rstrip()


def _summary(counts: Mapping[Level, int]) -> str:
    total = sum(counts.values())
    wrong = [
        f"{counts[level]} {level if counts[level] == 1 else f'{level}s'}"
        for level in (Level.PROBLEM, Level.WARNING)
        if counts[level]
    ]
    return f"{total} checks: {' and '.join(wrong) or 'all is well'}."


def _safety(status: Mapping[str, Any]) -> str:
    return safety_line(
        status["parity"], status["stripes_by_spare"], status["stripes_by_missing"], status["jobs"]
    )
