"""`ciaosfs ls`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain, islice
from typing import Any

import click

from ciaosfs.base.units import format_bytes
from ciaosfs.cli import output
from ciaosfs.cli.keyed import Failures, keyed, session
from ciaosfs.client.ciaos import Ciaos
from ciaosfs.client.info import ObjectInfo

TOGETHER = 100
"""Keys of which size and time are asked for at once."""


@click.command("ls")
@click.argument("prefix", metavar="[PREFIX]", default="")
@click.option("--recursive", "-r", is_flag=True, help="List what is in folders, too.")
@click.option("--long", "-l", "is_long", is_flag=True, help="Show size and time.")
@click.option("--limit", "-n", type=click.IntRange(min=1), metavar="N", help="No more than N.")
@keyed
def command(
    prefix: str, recursive: bool, is_long: bool, limit: int | None, as_json: bool, **where: Any
) -> int:
    """List keys, in the order of their bytes: those that begin with PREFIX, or that are in the folder PREFIX.

    Folders end in a slash.

    \b
    Example:
      ciaosfs ls -l runs/7
      ciaosfs ls -r --json runs | jq .size
    """
    failures = Failures()
    with session(**where) as ciaos, failures.one():
        keys = islice(_keys(ciaos, prefix, is_flat=not recursive), limit)
        if not (is_long or as_json):
            for key in keys:
                output.print_name(key)
            return 0
        while group := list(islice(keys, TOGETHER)):
            for key, info in _described(ciaos, group):
                if as_json:
                    output.print_json("object", {"key": key} if info is None else asdict(info))
                else:
                    output.print_name(_line(key, info))
    return failures.exit_status


def _keys(ciaos: Ciaos, prefix: str, *, is_flat: bool) -> Iterator[str]:
    """With the name of a folder, what is in it."""
    found = ciaos.keys(prefix, flat=is_flat)
    first = list(islice(found, 2))
    if is_flat and first == [f"{prefix}/"]:
        return ciaos.keys(f"{prefix}/", flat=True)
    return chain(first, found)


def _described(ciaos: Ciaos, keys: list[str]) -> Iterator[tuple[str, ObjectInfo | None]]:
    objects = [key for key in keys if not key.endswith("/")]
    known = dict(zip(objects, ciaos.stat_many(objects), strict=True))
    return ((key, known.get(key)) for key in keys)


def _line(key: str, info: ObjectInfo | None) -> str:
    if info is None:
        return f"{'-':>9}  {'-':<19}  {key}"
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(info.mtime_ns / 1e9))
    return f"{format_bytes(info.size):>9}  {when}  {key}"
