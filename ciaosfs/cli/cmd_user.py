"""`ciaosfs user add|list|remove`: who may have tokens of a mounted store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ciaosfs.cli import output, tokentable
from ciaosfs.cli.tokenoption import judged_connection, path_argument, token_file_option

_name = click.argument("name")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")


@click.group("user")
def command() -> None:
    """Add, list and remove the users of a mounted store: each has a folder, where keys begin, and tokens.

    For the owner of the store, or who has a token with the scope admin, for what lies in its prefix.

    \b
    Example:
      ciaosfs user add ann
      ciaosfs token create --user ann --scope read --scope write > ann.token
      ciaosfs user list --json
    """


@command.command("add")
@_name
@path_argument
@click.option("--folder", metavar="PATH", help="From the root of the store [default: /NAME].")
@click.option(
    "--uid",
    type=click.IntRange(min=0),
    help="Whose the folder becomes [default: the user of this machine with that name, else you].",
)
@click.option("--gid", type=click.IntRange(min=0), help="Its group [default: that user's].")
@token_file_option
@_json
def add(
    name: str,
    path: Path | None,
    folder: str | None,
    uid: int | None,
    gid: int | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Add a user, and make the folder for it unless it is there.

    \b
    Example:
      ciaosfs user add ann
      ciaosfs user add cluster --folder /lab/cluster --uid 2001 --gid 200
    """
    given = {"folder": folder, "uid": uid, "gid": gid}
    arguments: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    with judged_connection(path, token_file) as connection:
        result = connection.call("user-add", name=name, timeout_s=None, **arguments)
    user = result["user"]
    if as_json:
        output.print_json("user", {**user, "made": result["made"]})
        return
    where = output.printable(user["folder"])
    how = (
        f"its folder {where} belongs to {user['uid']}:{user['gid']}"
        if result["made"]
        else f"its folder {where} was there and stays as it is"
    )
    output.print_result(
        f"Added user {name}; {how}. Give it a token with 'ciaosfs token create --user {name} --scope read'."
    )


@command.command("list")
@path_argument
@token_file_option
@_json
def list_users(path: Path | None, token_file: Path | None, as_json: bool) -> None:
    """Show the users.

    \b
    Example:
      ciaosfs user list
    """
    with judged_connection(path, token_file) as connection:
        users = output.gather_pages(lambda after: connection.call("user-list", after=after), "users")
    if as_json:
        for user in users:
            output.print_json("user", user)
    else:
        output.print_lines(tokentable.users_table(users))


@command.command("remove")
@_name
@path_argument
@token_file_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json
def remove(name: str, path: Path | None, token_file: Path | None, yes: bool, as_json: bool) -> None:
    """Remove a user and revoke all its tokens. Its folder stays, with all that is in it.

    Asks on a terminal; elsewhere it needs --yes.

    \b
    Example:
      ciaosfs user remove ann
    """
    if not yes and not output.confirms(f"Remove user {name} and revoke all its tokens?"):
        raise click.Abort
    with judged_connection(path, token_file) as connection:
        result: dict[str, Any] = connection.call("user-remove", name=name, timeout_s=None)
    user, ended = result["user"], result["tokens_ended"]
    if as_json:
        output.print_json("user", {**user, "tokens_ended": ended})
        return
    tokens = "1 token was" if ended == 1 else f"{ended} tokens were"
    output.print_result(
        f"Removed user {name}; {tokens} revoked. The folder {output.printable(user['folder'])} and all in it stay."
    )
