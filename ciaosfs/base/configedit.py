"""Changing `ciaosfs.toml` while everything else a person wrote in it stays. The file changes in one step.

The text is edited, not generated anew: a drive's table is put behind the last one, or its lines are taken out; comments
stay, also those of a table that goes. The result is parsed and must say exactly what was meant. A file laid out so
that this cannot be done (drives in an inline array, say) is written anew, and the old one kept beside it. Who changes it
holds a lock on the store's directory meanwhile: the daemon and a command may both want to.
"""

from __future__ import annotations

import fcntl
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ciaosfs.base.config import (
    CONFIG_BYTES_MAX,
    CONFIG_NAME,
    DriveConfig,
    StoreConfig,
    format_config,
    format_drive,
    interpret,
    load_config,
)
from ciaosfs.base.errors import StoreError, UsageError

DRAFT_SUFFIX = ".tmp"
KEPT_SUFFIX = ".before"
_HEADER = re.compile(r"\s*\[")
_DRIVE_HEADER = re.compile(r"\s*\[\[\s*drive\s*\]\]")
_NUMBER = re.compile(r"\s*number\s*=\s*(\d+)\s*(#.*)?")
_NEXT_DRIVE = re.compile(r"\s*next_drive\s*=")
_ACCESS = re.compile(r"\s*access\s*=")
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'')

Edit = Callable[[str, StoreConfig], tuple[str, StoreConfig]]
"""(text, what it says) -> (the new text, what it is meant to say)."""


def add_drive(drive: DriveConfig) -> Edit:
    """The edit that adds a drive, whose number no other drive ever had."""

    def edit(text: str, config: StoreConfig) -> tuple[str, StoreConfig]:
        wanted = replace(
            config,
            drives=tuple(sorted((*config.drives, drive), key=lambda each: each.number)),
            next_drive=max(config.next_drive, drive.number + 1),
        )
        lines = text.splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        table = format_drive(config.path, drive).splitlines(keepends=True)
        spans = _drive_spans(lines)
        at = spans[-1][1] if spans else len(lines)
        behind = ["\n"] if at < len(lines) and lines[at].strip() else []
        lines[at:at] = ["\n", *table, *behind]
        return "".join(_with_next_drive(lines, wanted.next_drive)), wanted

    return edit


def remove_drive(number: int) -> Edit:
    """The edit that takes a drive out, if it is there. `replaces` of others that name it goes, too."""

    def edit(text: str, config: StoreConfig) -> tuple[str, StoreConfig]:
        kept = tuple(
            replace(drive, replaces=None) if drive.replaces == number else drive
            for drive in config.drives
            if drive.number != number
        )
        wanted = replace(config, drives=kept)
        lines = text.splitlines(keepends=True)
        names_it = re.compile(rf"\s*replaces\s*=\s*{number}\s*(#.*)?$")
        for start, end in reversed(_drive_spans(lines)):
            table = lines[start:end]
            if any((found := _NUMBER.match(line)) and int(found[1]) == number for line in table):
                lines[start:end] = [part for line in table for part in _comment_of(line)]
            else:
                lines[start:end] = [
                    part for line in table for part in (_comment_of(line) if names_it.match(line) else [line])
                ]
        return "".join(_with_next_drive(lines, wanted.next_drive)), wanted

    return edit


def set_access(mode: str) -> Edit:
    """The edit that sets the mode of access, one of `config.ACCESS_MODES`."""

    def edit(text: str, config: StoreConfig) -> tuple[str, StoreConfig]:
        lines = text.splitlines(keepends=True)
        note = '# "posix": permissions alone let a process use the mount; "tokens": it needs a token, too.\n'
        return "".join(_with_key(lines, _ACCESS, f'access = "{mode}"', note)), replace(config, access=mode)

    return edit


def change_config(store: Path, edit: Edit) -> StoreConfig:
    """Apply `edit` to the file of the store at `store`; returns what it says now. Blocking.

    After a crash there is the old file or the new one. Raises StoreError when the file is not valid as it stands,
    UsageError when it cannot hold what is meant, OSError; then it is as it was.
    """
    with _locked(store):
        return _change(store, edit)


def _change(store: Path, edit: Edit) -> StoreConfig:
    before = load_config(store)
    path = before.path / CONFIG_NAME
    text = path.read_text(encoding="utf-8")
    changed, wanted = edit(text, before)
    if wanted == before:
        return before
    if not _says(changed, wanted):
        changed = format_config(wanted)
        if not _says(changed, wanted):
            raise StoreError(f"{path} cannot be changed to what it should say: look at it and try again.")
        _write(path.with_name(path.name + KEPT_SUFFIX), text)
    if len(changed.encode()) > CONFIG_BYTES_MAX:
        raise UsageError(
            f"{path} would be larger than {CONFIG_BYTES_MAX} bytes: take some comments out of it."
        )
    draft = path.with_name(path.name + DRAFT_SUFFIX)
    _write(draft, changed)
    draft.replace(path)
    _sync(path.parent)
    return wanted


def _says(text: str, wanted: StoreConfig) -> bool:
    try:
        return interpret(wanted.path, tomllib.loads(text)) == wanted
    except (tomllib.TOMLDecodeError, UsageError):
        return False


def _drive_spans(lines: list[str]) -> list[tuple[int, int]]:
    """The lines of each drive's table, from its header to its last line that is neither empty nor a comment."""
    spans: list[tuple[int, int]] = []
    start: int | None = None
    end = 0
    for at, line in enumerate(lines):
        if _HEADER.match(line):
            if start is not None:
                spans.append((start, end))
            start = at if _DRIVE_HEADER.match(line) else None
        if line.strip() and not line.lstrip().startswith("#"):
            end = at + 1
    if start is not None:
        spans.append((start, end))
    return spans


def _with_next_drive(lines: list[str], number: int) -> list[str]:
    note = "# The number that the next drive gets; numbers are never given twice.\n"
    return _with_key(lines, _NEXT_DRIVE, f"next_drive = {number}", note)


def _with_key(lines: list[str], key: re.Pattern[str], new: str, note: str) -> list[str]:
    """The line `new`, in the place of the one that `key` matches, or with `note` behind the last line before the tables."""
    first_table = next((at for at, line in enumerate(lines) if _HEADER.match(line)), len(lines))
    keys = [
        at
        for at, line in enumerate(lines[:first_table])
        if line.strip() and not line.lstrip().startswith("#")
    ]
    for at in keys:
        if key.match(lines[at]):
            comment = _comment_of(lines[at])
            return [*lines[:at], f"{new}  {comment[0]}" if comment else new + "\n", *lines[at + 1 :]]
    at = keys[-1] + 1 if keys else first_table
    return [
        *lines[:at],
        "\n" + note,
        new + "\n",
        *lines[at:],
    ]


def _comment_of(line: str) -> list[str]:
    """What a person wrote in a line that goes: its comment, as a line of its own; nothing when it has none."""
    blanked = _STRINGS.sub(lambda found: "s" * len(found[0]), line)
    at = blanked.find("#")
    return [line[at:]] if at >= 0 else []


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Nobody else changes the file. Raises StoreError when there is no such directory."""
    try:
        descriptor = os.open(store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        load_config(store)  # says it
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
