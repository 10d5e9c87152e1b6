"""All printing: results on stdout, for people or as JSON lines with a type field; talk on stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from ciaosfs.base.errors import OutputError, UsageError
from ciaosfs.base.units import format_bytes, format_duration
from ciaosfs.cli.safety import safety_line


@contextmanager
def writing() -> Iterator[None]:
    """In this context something is written to standard output; OutputError when it cannot be."""
    try:
        yield
    except OSError as error:
        raise OutputError(error) from error


def _echo(text: str | bytes = "", nl: bool = True) -> None:
    with writing():
        click.echo(text, nl=nl)


def print_json(kind: str, fields: Mapping[str, Any]) -> None:
    """One JSON line."""
    _echo(json.dumps({"type": kind, **fields}))


def print_result(sentence: str) -> None:
    """What a command did, on stdout."""
    _echo(sentence)


def print_text(text: str) -> None:
    """Lines that end as they should, on stdout."""
    _echo(text, nl=False)


def print_colored(word: str, color: str, rest: str) -> None:
    """A line whose first word has a color where the terminal has some."""
    _echo(click.style(word, fg=color), nl=False)
    _echo(rest)


def print_raw(text: str) -> None:
    """What a terminal interprets, on stdout, at once."""
    with writing():
        sys.stdout.write(text)
        sys.stdout.flush()


def print_name(line: str) -> None:
    """A line with names in it, as bytes: they are not always text."""
    _echo(os.fsencode(line))


def talk(sentence: str) -> None:
    """What a person should know beside the result, on stderr."""
    click.echo(sentence, err=True)


def print_lines(lines: Sequence[str]) -> None:
    """A table or the like, on stdout."""
    for line in lines:
        _echo(line)


def printable(text: str) -> str:
    """`text` without what could play with a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def ask_secretly(question: str) -> str:
    """What somebody types, unseen; "" where nobody sits at a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return ""
    answer: str = click.prompt(
        question, prompt_suffix="", default="", show_default=False, hide_input=True, err=True
    )
    return answer


def confirms(question: str) -> bool:
    """Whether somebody at a terminal agrees; UsageError where nobody can be asked."""
    if not sys.stdin.isatty():
        raise UsageError(f"Nobody can be asked '{question}': give --yes.")
    return click.confirm(question, err=True)


def gather_pages(page: Callable[[int], Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """All items `name` of a list that comes in pages; `page` is told after which number to go on."""
    items: list[Mapping[str, Any]] = []
    after: int | None = 0
    while after is not None:
        answer = page(after)
        items += answer[name]
        after = answer["after"]
    return items


class Line:
    """One line on stderr that is written over, if that is a terminal; else nothing."""

    def __init__(self) -> None:
        self._is_live = sys.stderr.isatty()
        self._is_shown = False

    def show(self, text: str) -> None:
        """Show this instead of what was shown before, cut to the width of the terminal."""
        if self._is_live:
            width = shutil.get_terminal_size().columns - 1
            click.echo(f"\r\x1b[K{text[:width]}", nl=False, err=True)
            self._is_shown = True

    def clear(self) -> None:
        """Leave an empty line."""
        if self._is_shown:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._is_shown = False


class Screen:
    """Shows lines that change: on a terminal in one place, elsewhere as plain lines, only when they differ."""

    def __init__(self, *, is_live: bool) -> None:
        """`is_live` is False for what is shown once."""
        self.is_in_place = is_live and sys.stdout.isatty()
        self._shown: Sequence[str] = ()

    def show(self, lines: Sequence[str]) -> None:
        """Show these instead of those shown before."""
        if self.is_in_place and self._shown:
            _echo(f"\x1b[{len(self._shown)}A\x1b[J", nl=False)
        elif list(lines) == list(self._shown):
            return
        for line in lines:
            _echo(line)
        self._shown = list(lines)


def print_status(fields: Mapping[str, Any]) -> None:
    """The status of one store as a table; `fields` as the daemon gives them, or of one that is not mounted."""
    rows: list[tuple[str, str]] = [("Store", str(fields["store"]))]
    if fields["mounted"]:
        rows += _mounted_rows(fields)
    else:
        rows.append(("Mounted", _not_mounted(fields)))
        rows.append(("Coding", _coding(fields)))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        _echo(f"{name:<{width}}  {value}")
    _echo()
    _print_table(_drive_table(fields["drives"]))
    for drive in fields["drives"]:
        if drive.get("reason"):
            _echo(f"Drive {drive['number']} is {drive['state']}: {drive['reason']}")


def print_damaged(mountpoint: str, file: Mapping[str, Any]) -> None:
    """The paths of one file, a line each, as bytes: names are not always text."""
    for path in file["paths"]:
        _echo(os.fsencode(mountpoint + path))
    if not file["paths"]:
        _echo(f"inode {file['ino']}, which has no name any more")


def _mounted_rows(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    space, commit = fields["space"], fields["commit"]
    used = max(0, space["total"] - space["free"])
    uptime = format_duration(fields["uptime_s"])
    rows = [
        ("Mounted", f"{fields['mountpoint']} by process {fields['pid']} for {uptime}"),
        ("Coding", _coding(fields)),
        (
            "Space",
            f"{format_bytes(space['available'])} available of {format_bytes(space['total'])}, "
            f"{format_bytes(used)} used",
        ),
        ("Inodes", f"{fields['inodes']:,}; {fields['open_handles']:,} open files"),
        (
            "Safety",
            safety_line(
                fields["parity"], fields["stripes_by_spare"], fields["stripes_by_missing"], fields["jobs"]
            ),
        ),
        ("Stripes", _stripes(fields["stripes_by_missing"], fields["parity"])),
        ("In memory", f"{format_bytes(fields['dirty_bytes'])} not yet on the drives"),
        ("Last commit", _commit(commit)),
    ]
    if fields.get("weakness"):
        rows.append(("Weakness", str(fields["weakness"])))
    if commit["failure"]:
        rows.append(("Failing", str(commit["failure"])))
    rows += [("At mounting", str(report)) for report in fields["reports"]]
    return rows


def _not_mounted(fields: Mapping[str, Any]) -> str:
    if fields["holder_pid"] is not None:
        return f"no, but in use by process {fields['holder_pid']}"
    if fields["dead_mount"] is not None:
        return f"no: its daemon has died; the next 'ciaosfs mount' takes its dead mount at {fields['dead_mount']} away"
    ending = fields["last_ending"]
    if ending is None:
        return "no"
    return (
        "no, unmounted cleanly"
        if ending["exit_code"] == 0
        else f"no; the last mount ended: {ending['message']}"
    )


def _coding(fields: Mapping[str, Any]) -> str:
    data, parity = fields["data"], fields["parity"]
    return f"{data}+{parity} (any {parity} of {data + parity} shards may be lost)"


def _commit(commit: Mapping[str, Any]) -> str:
    if commit["sequence"] == 0:
        return "none yet"
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(commit["time_ns"] / 1e9))
    return f"{format_duration(commit['age_s'])} ago ({when}), number {commit['sequence']:,}"


def _stripes(by_missing: Mapping[str, int], parity: int) -> str:
    total = sum(by_missing.values())
    parts = [f"{total:,}"]
    for missing, count in sorted((int(key), count) for key, count in by_missing.items()):
        if missing and count:
            lost = ", lost" if missing > parity else ""
            shards = "shard" if missing == 1 else "shards"
            parts.append(f"{count:,} with {missing} {shards} missing{lost}")
    return "; ".join(parts) if len(parts) > 1 else f"{parts[0]}, all whole"


def _drive_table(drives: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    has_labels = any(drive.get("labels") for drive in drives)
    table = [["DRIVE", "STATE", "FREE", "TOTAL", *(["LABELS"] if has_labels else []), "PATH"]]
    for drive in drives:
        sizes = [
            format_bytes(drive[name]) if drive.get(name) is not None else "-" for name in ("free", "total")
        ]
        labels = [labels_of(drive)] if has_labels else []
        table.append([str(drive["number"]), state_of(drive), *sizes, *labels, str(drive["path"])])
    return table


def state_of(drive: Mapping[str, Any]) -> str:
    """How a drive is, and whether it is being emptied."""
    return str(drive["state"]) + (", draining" if drive.get("draining") else "")


def labels_of(drive: Mapping[str, Any]) -> str:
    """A drive's labels as they are given: "host=a,disk=b"."""
    return ",".join(f"{name}={value}" for name, value in drive.get("labels", {}).items()) or "-"


def _print_table(table: Sequence[Sequence[str]]) -> None:
    for line in format_table(table):
        _echo(line)


def format_table(table: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """The rows as lines with aligned columns; those in `right` end in one line."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
