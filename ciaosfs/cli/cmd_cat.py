"""`ciaosfs cat`."""

from __future__ import annotations

import base64
from typing import Any

import click

from ciaosfs.cli import output
from ciaosfs.cli.keyed import Failures, keyed, session
from ciaosfs.cli.streams import copy_out
from ciaosfs.cli.transferline import TransferLine


@click.command("cat")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@keyed
def command(keys: tuple[str, ...], as_json: bool, **where: Any) -> int:
    """Write what is under keys to standard output, one after the other.

    With --json a line for each, with its list of blobs in base64.

    \b
    Example:
      ciaosfs cat logs/train.log | tail
    """
    failures = Failures()
    with session(**where) as ciaos, TransferLine() as line:
        for key in keys:
            with failures.one():
                if as_json:
                    parts = [base64.b64encode(part).decode() for part in ciaos.get(key)]
                    output.print_json("object", {"key": key, "parts": parts})
                else:
                    with ciaos.open(key) as source:
                        copy_out(source, line.expect(source.info.size), line.of(key))
    return failures.exit_status
