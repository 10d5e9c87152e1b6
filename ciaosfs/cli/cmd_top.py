"""`ciaosfs top`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ciaosfs.base import clock
from ciaosfs.cli import output
from ciaosfs.cli.livescreen import live_screen
from ciaosfs.cli.paths import LocalPath
from ciaosfs.cli.rates import rates_between
from ciaosfs.cli.toptable import frame
from ciaosfs.client.locate import connect, locate_mounted
from ciaosfs.client.transport import Connection

Look = Callable[[], dict[str, Any]]


@click.command("top")
@click.argument(
    "path", metavar="[STORE|MOUNTPOINT]", type=LocalPath(path_type=Path, readable=False), required=False
)
@click.option(
    "--interval", type=click.FloatRange(0.1, 3600.0), default=1.0, show_default=True, metavar="SECONDS",
    help="Between two looks.",
)  # fmt: skip
@click.option("-n", "--count", type=click.IntRange(min=1), metavar="COUNT", help="End after so many looks.")
@click.option("--once", is_flag=True, help="Print what happened in one interval as plain lines.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each look.")
def command(path: Path | None, interval: float, count: int | None, once: bool, as_json: bool) -> None:
    """Show what a mounted store is doing now, and for whom.

    Requests by kind with how long they take, data read and written, what the caches had at hand, commits, jobs, and the
    processes by requests per second. On a terminal it goes on in place until q or Ctrl-C; elsewhere it prints plain
    lines. While it looks, every request is timed; else about one in 128 is. What is read and written through a file
    is counted for the process that opened it.

    \b
    Example:
      ciaosfs top /mnt/ciaos
      ciaosfs top --once --interval 10
      ciaosfs top --json -n 60 > load.jsonl
    """
    target, _ = locate_mounted(path)
    with connect(target.store) as connection:

        def look() -> dict[str, Any]:
            return _stats(connection)

        if as_json:
            _print_each(look, interval, 1 if once else count, as_json=True)
        elif once or not (sys.stdout.isatty() and sys.stdin.isatty()):
            _print_each(look, interval, 1 if once else count, as_json=False)
        else:
            _show_live(look, interval, count)


def _stats(connection: Connection) -> dict[str, Any]:
    return connection.call("stats", watch=True)


def _print_each(look: Look, interval_s: float, count: int | None, *, as_json: bool) -> None:
    before, number = look(), 0
    while count is None or number < count:
        time.sleep(interval_s)
        after = look()
        rates = rates_between(before, after)
        if as_json:
            output.print_json("top", {"rates": rates.fields(), "now": after})
        else:
            output.print_text("\n".join([*([""] if number else []), *frame(after, rates), ""]))
        before, number = after, number + 1


def _show_live(look: Look, interval_s: float, count: int | None) -> None:
    with live_screen() as screen:
        before, number = look(), 0
        first_s = min(interval_s, 0.5)  # nobody likes to look at nothing
        due_s = clock.monotonic_s() + first_s
        shown: list[str] = []
        shown = [f"ciaosfs {before['mountpoint']}: looking for {first_s:g} s ..."]
        after, rates = before, None
        while not screen.has_ended:
            if rates is not None:
                shown = frame(after, rates, lines_max=screen.lines - 1)
            screen.show(shown)
            if not screen.wait(due_s):
                continue
            after = look()
            rates, before = rates_between(before, after), after
            due_s = clock.monotonic_s() + interval_s
            number += 1
            if count is not None and number > count:
                return
