"""`ciaosfs check`."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from ciaosfs.base.config import StoreConfig, load_config
from ciaosfs.base.errors import StoreBusyError
from ciaosfs.checking.findings import Findings, Progress
from ciaosfs.cli import output
from ciaosfs.client import storelock
from ciaosfs.client.locate import locate
from ciaosfs.drive.workers import Workers
from ciaosfs.offline.check import check_closed

DAMAGED = 7


@click.command("check")
@click.argument("path", metavar="STORE", type=click.Path(path_type=Path, readable=False))
@click.option("--data", is_flag=True, help="Read and verify every block of every shard, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON line.")
def command(path: Path, data: bool, as_json: bool) -> int:
    """Prove that the store in the directory STORE is consistent, or say what is wrong, a sentence each.

    Nothing is changed. Exit status 7 when something is wrong.

    \b
    Example:
      ciaosfs check /srv/store --data
    """
    target = locate(path)
    if target.mount is not None:
        raise StoreBusyError(
            f"Store {target.store} is mounted: unmount it with 'ciaosfs umount' to check it."
        )
    with storelock.hold(target.store):
        findings = trio.run(_check, load_config(target.store), data)
    if as_json:
        output.print_json("check", {"problems": findings.problems, "notes": findings.notes})
    else:
        for sentence in findings.problems:
            output.print_result(sentence)
    return 0 if findings.is_sound else DAMAGED


async def _check(config: StoreConfig, data: bool) -> Findings:
    async with Workers() as workers:
        return await check_closed(config, workers, data=data, progress=Progress())
