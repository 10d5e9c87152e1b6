"""`ciaosfs login`."""

from __future__ import annotations

from pathlib import Path

import click

from ciaosfs.base.errors import UsageError
from ciaosfs.cli import output
from ciaosfs.cli.granted import describe
from ciaosfs.cli.tokenoption import path_argument, token_file_option
from ciaosfs.client import secret
from ciaosfs.client.locate import connect, locate_mounted


@click.command("login")
@path_argument
@token_file_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON line.")
def command(path: Path | None, token_file: Path | None, as_json: bool) -> None:
    """Let a token speak for this shell and for what is started from it, until 'ciaosfs logout' or the shell's end.

    It counts for the whole session: all processes that run as you and have not begun another (setsid, ssh, a new
    terminal). The token comes from a file, the environment or a prompt, and is never shown.

    \b
    Example:
      ciaosfs login --token-file ~/.ciaos-token
    """
    token = secret.given_token(token_file) or _asked()
    target, _ = locate_mounted(path)
    with connect(target.store) as connection:
        fields = connection.call("login", token=token)
        is_guarded = connection.call("hello")["access"] == "tokens"
    if as_json:
        output.print_json("login", fields)
        return
    output.print_result(f"Logged in {describe(fields)}.")
    if not is_guarded:
        output.talk("On this mount permissions alone decide: the token counts for commands and clients.")


def _asked() -> str:
    typed = output.ask_secretly("Token: ")
    if not typed.strip():
        raise UsageError(
            f"A token is needed: give --token-file, or set {secret.TOKEN_FILE_VARIABLE} or {secret.TOKEN_VARIABLE}."
        )
    return secret.checked_token(typed, "What was typed")
