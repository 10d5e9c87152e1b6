"""`ciaosfs metrics`."""

from __future__ import annotations

from pathlib import Path

import click

from ciaosfs.cli import output
from ciaosfs.cli.paths import LocalPath
from ciaosfs.client.locate import connect, locate_mounted


@click.command("metrics")
@click.argument(
    "path", metavar="[STORE|MOUNTPOINT]", type=LocalPath(path_type=Path, readable=False), required=False
)
def command(path: Path | None) -> None:
    """Print the metrics of a mounted store as Prometheus reads them, over the control socket.

    A file of them is for node_exporter's textfile collector; Prometheus reads a port by itself when the store is
    mounted with --metrics-port.

    \b
    Example:
      ciaosfs metrics /mnt/ciaos > /var/lib/node_exporter/ciaosfs.prom
    """
    target, _ = locate_mounted(path)
    with connect(target.store) as connection:
        connection.call("metrics")
        output.print_text(connection.reply_body.decode())
