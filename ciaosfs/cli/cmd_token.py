"""`ciaosfs token create|list|show|revoke|derive`: what users of a mounted store may do, and where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from ciaosfs.base import clock
from ciaosfs.base.errors import UsageError
from ciaosfs.base.units import parse_duration
from ciaosfs.cli import output, tokentable
from ciaosfs.cli.paths import LocalPath
from ciaosfs.cli.tokenoption import judged_connection, path_argument, token_file_option
from ciaosfs.client.secret import TOKEN_VARIABLE, new_token_file
from ciaosfs.control.scopes import all_names

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON lines; a secret is not in them.")
_out = click.option(
    "--out",
    type=LocalPath(path_type=Path, dir_okay=False),
    help="Write the secret into this new file, which only you can read, and not to standard output.",
)
_scopes = click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(all_names(), case_sensitive=False),
    help="What it allows; once for each. read: read and list; write: create, change, rename; delete: remove; "
    "admin: users, tokens and the state of the store.",
)
_ttl = click.option("--ttl", metavar="TIME", help="How long it lives, as 12h, 30d or 2w.")
_label = click.option("--name", default="", help="A label, for people.")


@click.group("token")
def command() -> None:
    """Give, list, narrow and revoke tokens of a mounted store.

    A token lets its holder do what its scopes say, in one part of the tree. Its secret is shown once, when it is made.

    \b
    Example:
      ciaosfs token create --user ann --scope read --scope write --ttl 30d > ann.token
      ciaosfs token derive --token-file ann.token --scope read --prefix models > reader.token
      ciaosfs token list --all --json
      ciaosfs token revoke 7
    """


@command.command("create")
@path_argument
@click.option("--user", required=True, help="Whose it is: 'ciaosfs user list' shows them.")
@_scopes
@click.option(
    "--prefix", default="", help="The only part it is good for, in the user's folder [default: all of it]."
)
@_ttl
@_label
@_out
@token_file_option
@_json
def create(
    path: Path | None,
    user: str,
    scopes: tuple[str, ...],
    prefix: str,
    ttl: str | None,
    name: str,
    out: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Give a user a token, and print its secret, alone on its line.

    \b
    Example:
      ciaosfs token create --user ann --scope read --scope write --scope delete > ann.token
      ciaosfs token create --user ann --scope read --prefix datasets --ttl 30d --out reader.token
    """
    asked = {"user": user, "scopes": list(scopes), "prefix": prefix, "name": name, **_ttl_of(ttl)}
    _issue("token-create", asked, path, token_file, out, as_json=as_json)


@command.command("derive")
@path_argument
@_scopes
@click.option("--prefix", help="A deeper part, in the user's folder [default: that of the token].")
@_ttl
@_label
@_out
@token_file_option
@_json
def derive(
    path: Path | None,
    scopes: tuple[str, ...],
    prefix: str | None,
    ttl: str | None,
    name: str,
    out: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Make a narrower token from one you hold: fewer scopes, a deeper prefix, a shorter life. It ends with yours.

    Yours comes from --token-file, the environment, a prompt, or the session that is logged in.

    \b
    Example:
      ciaosfs token derive --token-file ann.token --scope read --prefix models --ttl 1h > reader.token
    """
    asked: dict[str, Any] = {"name": name, **_ttl_of(ttl)}
    if scopes:
        asked["scopes"] = list(scopes)
    if prefix is not None:
        asked["prefix"] = prefix
    _issue("token-derive", asked, path, token_file, out, as_json=as_json, ask=True)


@command.command("list")
@path_argument
@click.option("--user", help="Those of this user alone.")
@click.option("--all", "with_ended", is_flag=True, help="Show those that have expired or were revoked, too.")
@token_file_option
@_json
def list_tokens(
    path: Path | None, user: str | None, with_ended: bool, token_file: Path | None, as_json: bool
) -> None:
    """Show the tokens that are live, never their secrets.

    \b
    Example:
      ciaosfs token list
      ciaosfs token list --user ann --json
    """
    arguments: dict[str, Any] = {"all": with_ended} | ({} if user is None else {"user": user})
    with judged_connection(path, token_file) as connection:
        tokens = output.gather_pages(
            lambda after: connection.call("token-list", after=after, **arguments), "tokens"
        )
    if as_json:
        for token in tokens:
            output.print_json("token", token)
    else:
        output.print_lines(tokentable.tokens_table(tokens, clock.now_ns()))


@command.command("show")
@click.argument("words", metavar="[TOKEN] [STORE|MOUNTPOINT]", nargs=-1)
@token_file_option
@_json
def show(words: tuple[str, ...], token_file: Path | None, as_json: bool) -> None:
    """Show one token by its number, or without one that which you hold.

    \b
    Example:
      ciaosfs token show 7
      ciaosfs token show --token-file ann.token
    """
    numbers = words[:1] if words and words[0].isdecimal() else ()
    paths = words[len(numbers) :]
    if len(paths) > 1:
        raise UsageError("Give the number of a token, or none, and one store or mount point at most.")
    arguments: dict[str, Any] = {"id": int(numbers[0])} if numbers else {}
    path = Path(paths[0]) if paths else None
    with judged_connection(path, token_file, ask=not numbers) as connection:
        token = connection.call("token-show", **arguments)["token"]
    if as_json:
        output.print_json("token", token)
    else:
        output.print_lines(tokentable.token_details(token, clock.now_ns()))


@command.command("revoke")
@click.argument("number", metavar="TOKEN", type=click.IntRange(min=1))
@path_argument
@token_file_option
@_json
def revoke(number: int, path: Path | None, token_file: Path | None, as_json: bool) -> None:
    """End a token at once, with all that were derived from it. There is no way back.

    \b
    Example:
      ciaosfs token list --user ann
      ciaosfs token revoke 7
    """
    with judged_connection(path, token_file) as connection:
        result = connection.call("token-revoke", id=number, timeout_s=None)
    token, ended = result["token"], result["ended"]
    if as_json:
        output.print_json("token", {**token, "ended": ended})
    elif not ended:
        output.print_result(f"Token {number} of {token['user']} was not live any more.")
    else:
        below = "" if ended == 1 else f", and {ended - 1} derived from it"
        output.print_result(f"Revoked token {number} of {token['user']}{below}.")


def _issue(
    operation: str,
    asked: Mapping[str, Any],
    path: Path | None,
    token_file: Path | None,
    out: Path | None,
    *,
    as_json: bool,
    ask: bool = False,
) -> None:
    """Have a token made. Its secret goes to `out`, or alone to standard output; what it is, to standard error."""
    if as_json and out is None:
        raise UsageError("A secret is never in JSON: give --out FILE for it.")
    place = nullcontext(output.print_result) if out is None else new_token_file(out)
    with place as keep, judged_connection(path, token_file, ask=ask) as connection:
        result = connection.call(operation, timeout_s=None, **asked)
        keep(result["secret"])
    token = result["token"]
    if as_json:
        output.print_json("token", {**token, "out": os.fspath(out)} if out is not None else token)
        return
    where = (
        f"Its secret is in {out}"
        if out is not None
        else "Its secret, which nobody can show again, is on standard output"
    )
    output.talk(
        f"Made {tokentable.summary(token, clock.now_ns())}. {where}: "
        f"keep it in a file for --token-file, or in {TOKEN_VARIABLE}."
    )


def _ttl_of(text: str | None) -> dict[str, float]:
    return {} if text is None else {"ttl_s": parse_duration(text)}
