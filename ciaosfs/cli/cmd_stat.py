"""`ciaosfs stat`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from ciaosfs.base.units import format_bytes
from ciaosfs.cli import output
from ciaosfs.cli.facts import Named, facts_lines
from ciaosfs.cli.keyed import Failures, keyed, session
from ciaosfs.client.info import ObjectInfo

PARTS_SHOWN = 8


@click.command("stat")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@keyed
def command(keys: tuple[str, ...], as_json: bool, **where: Any) -> int:
    """Show size, time, parts and metadata of what is under keys.

    \b
    Example:
      ciaosfs stat runs/7/model.pt
    """
    failures = Failures()
    with session(**where) as ciaos:
        for number, key in enumerate(keys):
            with failures.one():
                info = ciaos.stat(key)
                if as_json:
                    output.print_json("object", asdict(info))
                    continue
                for line in [*([""] if number else []), *facts_lines(_facts(info))]:
                    output.print_name(line)
    return failures.exit_status


def _facts(info: ObjectInfo) -> dict[str, Any]:
    sizes = [str(size) for size in info.parts[:PARTS_SHOWN]]
    rest = len(info.parts) - len(sizes)
    return {
        "key": info.key,
        "size": f"{format_bytes(info.size)} ({info.size:,} bytes)",
        "modified_ns": info.mtime_ns,
        "parts": f"{len(info.parts):,}, of {', '.join(sizes)}{f' and {rest:,} more' if rest else ''} bytes",
        **({"metadata": Named(info.metadata)} if info.metadata else {}),
    }
