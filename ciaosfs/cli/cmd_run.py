"""`ciaosfs run`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from ciaosfs.base.errors import UsageError
from ciaosfs.cli import sessionrun
from ciaosfs.cli.paths import LocalPath
from ciaosfs.cli.tokenoption import token_file_option
from ciaosfs.client import secret
from ciaosfs.client.locate import connect, locate_mounted


@click.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@token_file_option
@click.option(
    "--mount",
    "path",
    metavar="STORE|MOUNTPOINT",
    type=LocalPath(path_type=Path, readable=False),
    help="Which store, when several are mounted.",
)
@click.argument("words", metavar="[--] COMMAND...", nargs=-1, type=click.UNPROCESSED, required=True)
def command(path: Path | None, token_file: Path | None, words: Sequence[str]) -> int:
    """Run COMMAND in a session of its own for which a token speaks, and take the token back when it ends.

    Nothing but COMMAND and what it starts has the token, and nothing has it afterwards: what it leaves running loses it.
    Signals are handed on to it. Exit status: that of COMMAND, or 128 and the number of the signal that ended it; 126 or 127
    when it cannot be started.

    \b
    Example:
      ciaosfs run --token-file train.token -- python train.py --epochs 10
    """
    token = secret.given_token(token_file)
    if token is None:
        raise UsageError(
            f"A token is needed: give --token-file, or set {secret.TOKEN_FILE_VARIABLE} or {secret.TOKEN_VARIABLE}."
        )
    hidden = (secret.TOKEN_VARIABLE, secret.TOKEN_FILE_VARIABLE)
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    target, _ = locate_mounted(path)
    with connect(target.store) as connection:
        return sessionrun.run(connection, token, words, environment)
