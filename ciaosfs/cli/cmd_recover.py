"""`ciaosfs recover`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from ciaosfs.base import clock
from ciaosfs.base.config import StoreConfig, load_config
from ciaosfs.base.errors import StoreBusyError, UsageError
from ciaosfs.base.log import set_up_silence
from ciaosfs.base.units import format_duration
from ciaosfs.cli import output
from ciaosfs.cli.paths import LocalPath
from ciaosfs.cli.progress import ProgressLine
from ciaosfs.cli.running import run_async
from ciaosfs.client import storelock
from ciaosfs.client.locate import locate
from ciaosfs.drive.workers import Workers
from ciaosfs.meta.state import State
from ciaosfs.offline.recover import Plan, install, rebuilt


@click.command("recover")
@click.argument("path", metavar="STORE", type=LocalPath(path_type=Path, readable=False))
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON line.")
def command(path: Path, yes: bool, as_json: bool) -> int:
    """Rebuild the metadata of the store in the directory STORE from its drives, whatever the database holds.

    For a database that is damaged, lost, or not to be trusted; a mount does by itself what it can see. Says up to which
    moment the drives lead, and asks before the old database is replaced; that is kept beside it. The store must not be
    mounted.

    \b
    Example:
      ciaosfs recover /srv/store
    """
    target = locate(path)
    if target.mount is not None and storelock.read_lock(target.store)[0] is not None:
        raise StoreBusyError(f"Store {target.store} is mounted: unmount it with 'ciaosfs umount' first.")
    if not yes and not sys.stdin.isatty():
        raise UsageError("Nobody can be asked whether to replace the database: give --yes.")
    set_up_silence()
    with storelock.hold(target.store):
        return run_async(_recover, load_config(target.store), yes, as_json)


async def _recover(config: StoreConfig, yes: bool, as_json: bool) -> int:
    line = ProgressLine()
    line.show("reading the commit log of the drives", 0, 0, "")
    async with Workers() as workers, rebuilt(config, workers) as plan:
        line.clear()
        _show(plan)
        if not yes and not click.confirm("Replace the database with what the drives give?", err=True):
            output.talk("ciaosfs: nothing was changed.")
            return 1
        kept = install(config)
    _print(config, plan, kept, as_json)
    return 0


def _show(plan: Plan) -> None:
    """The plan, on stderr."""
    output.talk(f"The drives lead up to {moment(plan.state)}.")
    if plan.database_state is not None:
        output.talk(f"The database is at {moment(plan.database_state)}.")
    else:
        output.talk(f"The database cannot be used: {plan.database_trouble.rstrip('.')}.")
    for problem in plan.problems:
        output.talk(f"Wrong in what the drives give: {problem}")


def _print(config: StoreConfig, plan: Plan, kept: Path | None, as_json: bool) -> None:
    if as_json:
        fields: dict[str, Any] = {
            "store": os.fspath(config.path),
            "commit": plan.state.sequence,
            "time_ns": plan.state.time_ns,
            "kept": None if kept is None else os.fspath(kept),
            "problems": list(plan.problems),
        }
        output.print_json("recover", fields)
        return
    output.print_result(f"Recovered up to {moment(plan.state)}.")
    if kept is not None:
        output.print_result(f"The old database is kept in {kept}.")


def moment(state: State) -> str:
    """A commit's number and time."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.time_ns / 1e9))
    age_s = max(0.0, (clock.now_ns() - state.time_ns) / 1e9)
    return f"commit {state.sequence:,} of {when} ({format_duration(age_s)} ago)"
