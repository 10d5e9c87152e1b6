"""`ciaosfs mv`."""

from __future__ import annotations

from typing import Any

import click

from ciaosfs.cli import output
from ciaosfs.cli.keyed import keyed, session


@click.command("mv")
@click.argument("old")
@click.argument("new")
@keyed
def command(old: str, new: str, as_json: bool, **where: Any) -> None:
    """Give what is under the key OLD the key NEW, in one step. Nothing is replaced.

    With a slash at its end NEW is where it goes, under its name.

    \b
    Example:
      ciaosfs mv runs/7/model.pt best/model.pt
    """
    target = new + old.rpartition("/")[2] if new.endswith("/") else new
    with session(**where) as ciaos:
        ciaos.update_key(old, target)
    if as_json:
        output.print_json("mv", {"old": old, "new": target})
