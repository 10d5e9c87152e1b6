"""By whose token a command is judged: the option for it, and a connection that has given it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ciaosfs.cli import output
from ciaosfs.cli.paths import LocalPath
from ciaosfs.client import secret
from ciaosfs.client.locate import connect, locate_mounted
from ciaosfs.client.transport import Connection

token_file_option = click.option(
    "--token-file",
    type=LocalPath(path_type=Path, dir_okay=False, allow_dash=True),
    help=f"Be judged by the token in this file ('-': standard input). Else {secret.TOKEN_FILE_VARIABLE} may name one, or "
    f"{secret.TOKEN_VARIABLE} be one.",
)
path_argument = click.argument(
    "path", metavar="[STORE|MOUNTPOINT]", type=LocalPath(path_type=Path, readable=False), required=False
)


@contextmanager
def judged_connection(
    path: Path | None, token_file: Path | None, *, ask: bool = False
) -> Iterator[Connection]:
    """A connection to the daemon of the store that `path` means, judged by the token given, if one is.

    `ask`: without a token somebody at a terminal is asked for one; nothing typed is none. Raises CiaosError.
    """
    token = secret.given_token(token_file)
    if token is None and ask:
        typed = output.ask_secretly("Token (empty: that of this session): ")
        token = secret.checked_token(typed, "What was typed") if typed.strip() else None
    target, _ = locate_mounted(path)
    with connect(target.store) as connection:
        if token is not None:
            connection.auth(token)
        yield connection
