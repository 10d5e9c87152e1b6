"""`ciaosfs get`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ciaosfs.base.errors import UsageError
from ciaosfs.cli import output
from ciaosfs.cli.keyed import STDIO, Failures, below, keyed, session, split_destination
from ciaosfs.cli.streams import copy, copy_out, replacing
from ciaosfs.cli.transferline import TransferLine
from ciaosfs.client.ciaos import Ciaos


@click.command("get")
@click.argument("arguments", metavar="KEY... [FILE]", nargs=-1, required=True)
@click.option("--recursive", "-r", is_flag=True, help="Get every key below KEY, into directories.")
@keyed
def command(arguments: tuple[str, ...], recursive: bool, as_json: bool, **where: Any) -> int:
    """Get what is under keys into files. A FILE is replaced when all of it has come, and else left alone.

    The file is named as the last part of the key, unless FILE says otherwise; into a FILE that is a directory or ends
    with a slash each goes under its name. FILE may be - for standard output.

    \b
    Example:
      ciaosfs get runs/7/model.pt
      ciaosfs get -r training/ /tmp/
      ciaosfs get backups/src.tar - | tar t
    """
    keys, destination = split_destination(arguments, "keys")
    failures = Failures()
    with session(**where) as ciaos, TransferLine() as line:
        for key in keys:
            for each, path in _pairs(ciaos, key, destination, failures, recursive=recursive):
                with failures.one():
                    moved = _get(ciaos, each, path, line)
                    if as_json and path is not None:
                        fields = {"key": each, "file": os.fspath(path), "bytes": moved}
                        output.print_json("get", fields)
    return failures.exit_status


def _get(ciaos: Ciaos, key: str, path: Path | None, line: TransferLine) -> int:
    """Returns how many bytes it was. Without a path to standard output."""
    with ciaos.open(key) as source:
        total = line.expect(source.info.size)
        if path is None:
            return copy_out(source, total, line.of(key))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            return copy(source, file, total, line.of(key))


def _pairs(
    ciaos: Ciaos, key: str, destination: str | None, failures: Failures, *, recursive: bool
) -> Iterator[tuple[str, Path | None]]:
    """(key, file) for a key as it is named."""
    name = key.rstrip("/").rpartition("/")[2]
    if destination is None:
        place = Path(name)
    elif destination.endswith("/") or Path(destination).is_dir():
        place = Path(destination) / name
    else:
        place = Path(destination)
    if not recursive:
        yield key, None if destination == STDIO else place
    elif destination == STDIO:
        raise UsageError("Several objects cannot go to standard output: 'ciaosfs cat' takes several keys.")
    else:
        prefix = below(key)
        count = 0
        with failures.one():
            for found in ciaos.keys(prefix):
                count += 1
                yield found, place / found.removeprefix(prefix)
        failures.expect(count, prefix)
