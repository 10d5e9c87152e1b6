"""`ciaosfs check`: by the daemon when the store is mounted, else in this process with the store's lock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import trio

from ciaosfs.base.config import StoreConfig, load_config
from ciaosfs.base.errors import DamagedError
from ciaosfs.base.log import set_up_silence
from ciaosfs.checking.findings import Findings, Progress
from ciaosfs.cli import output
from ciaosfs.cli.paths import LocalPath
from ciaosfs.cli.progress import ProgressLine
from ciaosfs.cli.running import run_async
from ciaosfs.client import storelock
from ciaosfs.client.locate import connect, death_of, locate
from ciaosfs.drive.workers import Workers
from ciaosfs.offline.check import check_closed

SHOW_S = 0.5

Show = Callable[[str, int, int, str], None]


@click.command("check")
@click.argument(
    "path", metavar="[STORE|MOUNTPOINT]", type=LocalPath(path_type=Path, readable=False), required=False
)
@click.option(
    "--data",
    is_flag=True,
    help="Read and verify every block of every shard, and compare the metadata with what the log gives.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def command(path: Path | None, data: bool, as_json: bool) -> int:
    """Prove a store consistent, or say what is wrong, one sentence each. Nothing is changed.

    Every invariant of the metadata is looked at, every shard that something depends on must be where it should be, and
    the commit log must lead up to the metadata. A mounted store is checked by its daemon, beside all other work, as of
    a moment; without a mount, or when STORE is given and its daemon has died, what the next mount would show is checked.

    Exit status 7: something is wrong. 'ciaosfs scrub' repairs what can be repaired in a mounted store, 'ciaosfs
    recover' rebuilds the metadata.

    \b
    Example:
      ciaosfs check /srv/store --data
    """
    target = locate(path)
    if target.is_orphaned:
        output.talk(f"ciaosfs: {death_of(target.store)}, which is what is checked.")
    with ProgressLine() as line:
        if target.mount is not None and not target.is_orphaned:
            findings = _of_mounted(target.store, data, line.show)
        else:
            set_up_silence()
            with storelock.hold(target.store):
                findings = run_async(_of_closed, load_config(target.store), data, line.show)
    _print(target.store, findings, data, as_json)
    return 0 if findings.is_sound else DamagedError.exit_code


def _of_mounted(store: Path, data: bool, show: Show) -> Findings:
    findings = Findings()
    with connect(store) as connection:
        for part in connection.stream("check", data=data):
            if "stage" in part:
                show(part["stage"], part["done"], part["total"], part["unit"])
            findings.problems += part.get("problems", [])
            findings.notes += part.get("notes", [])
        findings.problem_count = connection.reply["problem_count"]
    return findings


async def _of_closed(config: StoreConfig, data: bool, show: Show) -> Findings:
    progress = Progress()

    async def show_often() -> None:
        while True:
            show(progress.stage, progress.done, progress.total, progress.unit)
            await trio.sleep(SHOW_S)

    async with Workers() as workers, trio.open_nursery() as nursery:
        nursery.start_soon(show_often)
        findings = await check_closed(config, workers, data=data, progress=progress)
        nursery.cancel_scope.cancel()
    return findings


def _print(store: Path, findings: Findings, data: bool, as_json: bool) -> None:
    untold = findings.problem_count - len(findings.problems)
    if as_json:
        for kind, sentences in (("problem", findings.problems), ("note", findings.notes)):
            for sentence in sentences:
                output.print_json(kind, {"sentence": sentence})
        fields: dict[str, Any] = {"store": str(store), "data": data, "problems": findings.problem_count}
        output.print_json("check", fields)
        return
    for sentence in findings.problems:
        output.print_result(sentence)
    for sentence in findings.notes:
        output.print_result(f"Note: {sentence}")
    if untold:
        output.print_result(f"{untold:,} more problems are not shown.")
    if findings.is_sound:
        output.print_result(f"Store {store} is consistent.")
    else:
        noun = "problem" if findings.problem_count == 1 else "problems"
        output.print_result(f"Store {store} has {findings.problem_count:,} {noun}.")
