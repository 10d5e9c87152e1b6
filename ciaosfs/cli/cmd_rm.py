"""`ciaosfs rm`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from ciaosfs.cli import output
from ciaosfs.cli.keyed import Failures, below, keyed, session
from ciaosfs.client.ciaos import Ciaos


@click.command("rm")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@click.option("--recursive", "-r", is_flag=True, help="Delete every key below KEY.")
@click.option("--force", "-f", is_flag=True, help="A key that is missing is as good as deleted.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@keyed
def command(
    keys: tuple[str, ...], recursive: bool, force: bool, yes: bool, as_json: bool, **where: Any
) -> int:
    """Delete what is under keys.

    With -r every key below KEY, as a directory; on a terminal it is said how many these are, and asked.

    \b
    Example:
      ciaosfs rm runs/7/model.pt
      ciaosfs rm -r --yes runs/6
    """
    failures = Failures()
    with session(**where) as ciaos:
        for key in keys:
            if not recursive:
                names = iter([key])
            elif yes or _is_wanted(ciaos, key):
                names = _keys_below(ciaos, key, failures, force=force)
            else:
                continue
            for name in names:
                with failures.one():
                    _delete(ciaos, name, force=force, as_json=as_json)
    return failures.exit_status


def _delete(ciaos: Ciaos, key: str, *, force: bool, as_json: bool) -> None:
    try:
        ciaos.delete(key)
    except KeyError:
        if not force:
            raise
        return
    if as_json:
        output.print_json("rm", {"key": key})


def _is_wanted(ciaos: Ciaos, key: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    count = sum(1 for _ in ciaos.keys(below(key)))
    return not count or click.confirm(f"Delete {count:,} objects below {key!r}?", err=True)


def _keys_below(ciaos: Ciaos, key: str, failures: Failures, *, force: bool) -> Iterator[str]:
    count = 0
    with failures.one():
        for name in ciaos.keys(below(key)):
            count += 1
            yield name
    if not force:
        failures.expect(count, below(key))
