"""`ciaosfs put`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from ciaosfs.base.errors import UsageError
from ciaosfs.cli import output
from ciaosfs.cli.keyed import STDIO, Failures, keyed, session, split_destination
from ciaosfs.cli.paths import LocalPath
from ciaosfs.cli.streams import copy_in
from ciaosfs.cli.transferline import TransferLine
from ciaosfs.client.ciaos import Ciaos


@click.command("put")
@click.argument("arguments", metavar="FILE... [KEY]", nargs=-1, required=True, type=LocalPath())
@click.option("--recursive", "-r", is_flag=True, help="Put what is in directories, too.")
@click.option("--replace", "-f", is_flag=True, help="Put it also where there is a key already.")
@click.option("--meta", "metadata", multiple=True, metavar="NAME=VALUE", help="Keep this with the object.")
@click.option("--sync", is_flag=True, help="Return when it is on the drives.")
@keyed
def command(
    arguments: tuple[str, ...],
    recursive: bool,
    replace: bool,
    metadata: tuple[str, ...],
    sync: bool,
    as_json: bool,
    **where: Any,
) -> int:
    """Put files under keys. Readers see all of a file, or nothing of it.

    The key is the name of the file, unless KEY says otherwise; a KEY that ends with a slash is where the files go, each
    under its name. FILE may be - for standard input.

    \b
    Example:
      ciaosfs put model.pt runs/7/model.pt
      ciaosfs put -r --replace dataset/ training/
      tar c src | ciaosfs put - backups/src.tar
    """
    sources, destination = split_destination(arguments, "files")
    kept = _parse_metadata(metadata)
    failures = Failures()
    pairs = [
        pair for source in sources for pair in _pairs(source, destination, failures, recursive=recursive)
    ]
    with session(**where) as ciaos, TransferLine(sum(map(_size, pairs))) as line:
        for source, key in pairs:
            with failures.one():
                moved = _put(
                    ciaos, source, key, line, mode="wb" if replace else "xb", metadata=kept, sync=sync
                )
                if as_json:
                    output.print_json("put", {"key": key, "bytes": moved})
    return failures.exit_status


def _put(ciaos: Ciaos, source: str, key: str, line: TransferLine, **options: Any) -> int:
    """Returns how many bytes it was."""
    mode = options.pop("mode")
    if source == STDIO:
        with ciaos.open(key, mode, **options) as out:
            return copy_in(out, line.of(key))
    size = 0

    def progress(done: int, total: int) -> None:
        nonlocal size
        size = done
        shown(done, total)

    shown = line.of(key)
    ciaos.put(source, key, replace=mode == "wb", progress=progress, **options)
    return size


def _pairs(
    source: str, destination: str | None, failures: Failures, *, recursive: bool
) -> Iterator[tuple[str, str]]:
    """(file, key) for a source as it is named."""
    if source == STDIO:
        if destination is None or destination.endswith("/"):
            raise UsageError("What comes from standard input needs a key: 'ciaosfs put - KEY'.")
        yield source, destination
        return
    name = Path(os.path.abspath(source)).name  # noqa: PTH100 - resolve() would give the name a link points to
    key = name if destination is None else destination + name if destination.endswith("/") else destination
    if not Path(source).is_dir():
        yield source, key
    elif not recursive:
        raise UsageError(f"{source} is a directory: put what is in it with 'ciaosfs put -r'.")
    else:
        for path in _files_below(Path(source), failures):
            yield os.fspath(path), f"{key}/{path.relative_to(source)}"


def _files_below(directory: Path, failures: Failures) -> Iterator[Path]:
    """Every file in the tree, in order; links to files count as files, links to directories are not followed."""
    for top, directories, names in os.walk(directory):
        directories.sort()
        for name in sorted(names):
            path = Path(top, name)
            if _is_regular(path, failures):
                yield path


def _is_regular(path: Path, failures: Failures) -> bool:
    with failures.one():
        if stat.S_ISREG(path.stat().st_mode):
            return True
        output.talk(f"ciaosfs: {path} is no regular file: left out.")
    return False


def _size(pair: tuple[str, str]) -> int:
    try:
        return 0 if pair[0] == STDIO else Path(pair[0]).stat().st_size
    except OSError:
        return 0  # putting it says what is wrong


def _parse_metadata(words: Sequence[str]) -> dict[str, str] | None:
    found = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator:
            raise UsageError(f"{word!r} is no metadata: give NAME=VALUE.")
        found[name] = value
    return found or None
