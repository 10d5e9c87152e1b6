"""`ciaosfs whoami`."""

from __future__ import annotations

from pathlib import Path

import click

from ciaosfs.base.errors import AccessError
from ciaosfs.cli import output
from ciaosfs.cli.granted import describe
from ciaosfs.cli.tokenoption import path_argument
from ciaosfs.client.locate import connect, locate_mounted


@click.command("whoami")
@path_argument
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON line.")
def command(path: Path | None, as_json: bool) -> int:
    """Say by which token this session is judged, or that it needs none. Exit status 8 when it has none that counts.

    \b
    Example:
      ciaosfs whoami
    """
    target, _ = locate_mounted(path)
    with connect(target.store) as connection:
        fields = connection.call("whoami")
    is_good = fields["by"] == "owner" or fields.get("live", False)
    if as_json:
        output.print_json("whoami", fields)
    elif fields["by"] == "owner":
        output.print_result("The owner of the store, who needs no token.")
    elif fields["by"] == "nothing":
        output.print_result("Nobody: this session is not logged in.")
    elif is_good:
        output.print_result(f"Logged in {describe(fields)}.")
    else:
        output.print_result(f"Nobody: token {fields['token']} of {fields['user']} has ended.")
    return 0 if is_good else AccessError.exit_code
