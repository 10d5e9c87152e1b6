"""Paths on the command line. An empty one is an error: it would mean the current directory, which nobody who leaves a
variable unset has in mind."""

from __future__ import annotations

import os
from typing import Any

import click


class LocalPath(click.Path):
    """A path of this machine, there or not; never an empty one."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        if os.fspath(value) == "":
            self.fail("an empty path was given: write '.' for the current directory.", param, ctx)
        return super().convert(value, param, ctx)
