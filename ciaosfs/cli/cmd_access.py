"""`ciaosfs access STORE [posix|tokens]`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ciaosfs.base.config import ACCESS_MODES, load_config
from ciaosfs.base.configedit import change_config, set_access
from ciaosfs.cli import output
from ciaosfs.cli.paths import LocalPath
from ciaosfs.client.locate import locate

_MEANING = {
    "posix": "permissions alone say who may use the mount",
    "tokens": "a process needs a token, besides permissions; the owner of the store is exempt",
}


@click.command("access")
@click.argument("store", metavar="STORE|MOUNTPOINT", type=LocalPath(path_type=Path, readable=False))
@click.argument("mode", type=click.Choice(ACCESS_MODES), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON line.")
def command(store: Path, mode: str | None, as_json: bool) -> None:
    """Show whether a store asks for tokens, or change it. A change holds from the next mount on.

    \b
    Example:
      ciaosfs access /srv/store
      ciaosfs access /srv/store tokens
    """
    target = locate(store)
    config = load_config(target.store)
    is_changed = mode is not None and mode != config.access
    if mode is not None:
        config = change_config(target.store, set_access(mode))
    waits = is_changed and target.mount is not None
    if as_json:
        fields = {"store": os.fspath(config.path), "access": config.access, "changed": is_changed}
        output.print_json("access", {**fields, "at_next_mount": waits})
        return
    now = (
        f"{config.path} is {'now ' if is_changed else ''}in mode {config.access}: {_MEANING[config.access]}."
    )
    output.print_result(
        f"{now} It is mounted, and goes on as it was until it is mounted again." if waits else now
    )
