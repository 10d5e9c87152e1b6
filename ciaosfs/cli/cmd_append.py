"""`ciaosfs append`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ciaosfs.cli import output
from ciaosfs.cli.keyed import STDIO, keyed, session
from ciaosfs.cli.paths import LocalPath
from ciaosfs.cli.streams import copy, copy_in
from ciaosfs.cli.transferline import TransferLine


@click.command("append")
@click.argument("key")
@click.argument("files", metavar="[FILE...]", nargs=-1, type=LocalPath())
@click.option("--sync", is_flag=True, help="Return when it is on the drives.")
@keyed
def command(key: str, files: tuple[str, ...], sync: bool, as_json: bool, **where: Any) -> None:
    """Add files after what is under KEY, each as one more blob; standard input without FILE, or for -.

    \b
    Example:
      ciaosfs append logs/train.log today.log
      date | ciaosfs append logs/train.log
    """
    with session(**where) as ciaos, TransferLine() as line:
        for name in files or [STDIO]:
            if name == STDIO:
                with ciaos.open(key, "ab", sync=sync) as out:
                    moved = copy_in(out, line.of(key))
            else:
                with Path(name).open("rb") as file, ciaos.open(key, "ab", sync=sync) as out:
                    moved = copy(file, out, Path(name).stat().st_size, line.of(name))
            if as_json:
                output.print_json("append", {"key": key, "bytes": moved})
