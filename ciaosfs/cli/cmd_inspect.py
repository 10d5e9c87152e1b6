"""`ciaosfs inspect volume|needle|stripe|commit|drive|state`: prints any structure of a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ciaosfs.base.config import load_config
from ciaosfs.base.errors import DamagedError
from ciaosfs.base.log import set_up_silence
from ciaosfs.cli import output
from ciaosfs.cli.facts import facts_lines
from ciaosfs.cli.paths import LocalPath
from ciaosfs.client.locate import locate
from ciaosfs.offline.inspect import commits, stores, stripes, volumes
from ciaosfs.offline.inspect.stock import Facts, Stock

LIMIT = 100


class VolumeId(click.ParamType[int]):
    """Sixteen hexadecimal digits, as in the name of the volume's file; that name itself will do."""

    name = "VOLUME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return int(str(value).removesuffix(".vol"), 16)
        except ValueError:
            self.fail(f"{value!r} is no volume: give the name of its file.", param, ctx)


_path = click.argument(
    "path", metavar="[STORE|MOUNTPOINT]", type=LocalPath(path_type=Path, readable=False), required=False
)
_json = click.option("--json", "as_json", is_flag=True, help="Print a JSON line.")
_limit = click.option(
    "--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True, help="Show at most so many."
)


@click.group("inspect")
def command() -> None:
    """Print any structure of a store, mounted or not, sound or damaged. Nothing is changed.

    Exit status 7 when a part of the store that was asked for cannot be read; the rest is printed all the same.

    \b
    Example:
      ciaosfs inspect state /srv/store
      ciaosfs inspect volume 19b2c6f3a4000001 /srv/store --json
      ciaosfs inspect commit 17 /srv/store
    """


@command.command("state")
@_path
@_json
def state(path: Path | None, as_json: bool) -> int:
    """The commit the metadata is at, its sums, and the newest commit on the drives.

    \b
    Example:
      ciaosfs inspect state /srv/store
    """
    return _print(path, "state", stores.state, as_json)


@command.command("drive")
@click.argument("number", metavar="DRIVE", type=click.IntRange(min=0))
@_path
@click.option("--after", type=VolumeId(), default=0, help="Begin behind this volume.")
@_limit
@_json
def drive(number: int, path: Path | None, after: int, limit: int, as_json: bool) -> int:
    """One drive and its volumes.

    \b
    Example:
      ciaosfs inspect drive 0 /srv/store
    """
    return _print(path, "drive", lambda stock: stores.drive(stock, number, after, limit), as_json)


@command.command("volume")
@click.argument("volume", type=VolumeId())
@_path
@click.option("--from", "start", type=click.IntRange(min=0), default=0, help="Begin at this offset.")
@_limit
@_json
def volume(volume: int, path: Path | None, start: int, limit: int, as_json: bool) -> int:
    """A volume: its superblock, and its needles with their state (live, dead, torn, missing).

    \b
    Example:
      ciaosfs inspect volume 19b2c6f3a4000001 /srv/store --limit 10
    """
    return _print(path, "volume", lambda stock: volumes.volume(stock, volume, start, limit), as_json)


@command.command("needle")
@click.argument("volume", type=VolumeId())
@click.argument("offset", type=click.IntRange(min=0))
@_path
@_json
def needle(volume: int, offset: int, path: Path | None, as_json: bool) -> int:
    """The needle at OFFSET of a volume: its head, its state, its bad blocks.

    \b
    Example:
      ciaosfs inspect needle 19b2c6f3a4000001 4096 /srv/store
    """
    return _print(path, "needle", lambda stock: volumes.needle(stock, volume, offset), as_json)


@command.command("stripe")
@click.argument("stripe", type=click.IntRange(min=0))
@_path
@_limit
@_json
def stripe(stripe: int, path: Path | None, limit: int, as_json: bool) -> int:
    """A stripe: its record, its shards and what is wrong with them, the files with bytes in it.

    \b
    Example:
      ciaosfs inspect stripe 1853026345983082497 /srv/store
    """
    return _print(path, "stripe", lambda stock: stripes.stripe(stock, stripe, limit), as_json)


@command.command("commit")
@click.argument("sequence", metavar="NUMBER", type=click.IntRange(min=1))
@_path
@_limit
@_json
def commit(sequence: int, path: Path | None, limit: int, as_json: bool) -> int:
    """A commit of the drives' log: its header, its copies, the rows it changed.

    \b
    Example:
      ciaosfs inspect commit 17 /srv/store
    """
    return _print(path, "commit", lambda stock: commits.commit(stock, sequence, limit), as_json)


def _print(path: Path | None, kind: str, ask: Callable[[Stock], Facts], as_json: bool) -> int:
    target = locate(path)
    set_up_silence()
    with Stock(load_config(target.store)) as stock:
        facts = ask(stock)
        trouble = stock.trouble()
    if as_json:
        output.print_json(kind, {**facts, "trouble": trouble})
    else:
        for line in facts_lines(facts):
            output.print_result(line)
        for sentence in trouble:
            output.talk(f"ciaosfs: {sentence}")
    return DamagedError.exit_code if trouble else 0
