"""`ciaosfs logout`."""

from __future__ import annotations

from pathlib import Path

import click

from ciaosfs.cli import output
from ciaosfs.cli.tokenoption import path_argument
from ciaosfs.client.locate import connect, locate_mounted


@click.command("logout")
@path_argument
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON line.")
def command(path: Path | None, as_json: bool) -> None:
    """Take back what 'ciaosfs login' gave this session.

    Returns when everything the session had written is with the daemon. Its files that are still open cannot be used any
    more. The token itself stays good: 'ciaosfs token revoke' ends it everywhere.

    \b
    Example:
      ciaosfs logout
    """
    target, _ = locate_mounted(path)
    with connect(target.store) as connection:
        fields = connection.call("logout", timeout_s=None)
    if as_json:
        output.print_json("logout", fields)
    elif not fields["was_logged_in"]:
        output.talk("This session was not logged in.")
