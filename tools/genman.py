"""Manual pages from the commands themselves: `python -m tools.genman [DIRECTORY]` writes one page for each.

What `--help` says is all there is to say, so nothing is written twice: the help's paragraphs become the description, its
example and the exit statuses sections of their own. The parts of a command that has some (`ciaosfs drive add`) are
in its page. Pages carry no date, so the same source gives the same bytes.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # started as a file: the modules beside it are found from the root of the repository
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click

from ciaosfs import __version__
from ciaosfs.cli.main import group

DIRECTORY = Path("packaging/man")
SECTION = 1
_STATUS = re.compile(r"(\d+) ([^,.]+)")


@dataclass(frozen=True)
class Help:
    """The text of a command, taken apart: plain paragraphs, and those that keep their lines."""

    paragraphs: list[str]
    verbatim: list[str]

    @classmethod
    def of(cls, command: click.Command) -> Help:
        paragraphs, verbatim = [], []
        for part in re.split(r"\n\s*\n", inspect.cleandoc(command.help or "").strip()):
            if part.startswith("\b\n"):
                verbatim.append(textwrap.dedent(part.partition("\n")[2]))
            elif part:
                paragraphs.append(" ".join(part.split()))
        return cls(paragraphs, verbatim)


def pages() -> dict[str, str]:
    """Every page, by the name of its file."""
    root = click.Context(group, info_name="ciaosfs", **group.context_settings)
    commands = {
        name: command for name in group.list_commands(root) if (command := group.get_command(root, name))
    }
    found = {f"ciaosfs.{SECTION}": _root_page(root, commands)}
    for name, command in commands.items():
        context = click.Context(command, info_name=name, parent=root)
        found[f"ciaosfs-{name}.{SECTION}"] = _page(context, command, list(commands))
    return found


def _root_page(context: click.Context, commands: dict[str, click.Command]) -> str:
    lines = [*_head(context, group)]
    lines.append(".SH COMMANDS")
    for name, command in commands.items():
        lines += [".TP", rf"\fBciaosfs\-{_escaped(name)}\fR({SECTION})", _escaped(_summary(command))]
    lines += [*_options(context, group), *_ending(group, [name for name in commands])]
    return "\n".join(lines) + "\n"


def _page(context: click.Context, command: click.Command, others: list[str]) -> str:
    lines = [*_head(context, command), *_options(context, command)]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for name in command.list_commands(context):
            part = command.get_command(context, name)
            assert part is not None
            lines += _part(click.Context(part, info_name=name, parent=context), part)
    lines += _ending(command, [other for other in others if other != context.info_name])
    return "\n".join(lines) + "\n"


def _head(context: click.Context, command: click.Command) -> list[str]:
    title = context.command_path.replace(" ", "-")
    return [
        f'.TH "{_escaped(title.upper())}" {SECTION} "" "ciaosfs {__version__}" "ciaosfs manual"',
        ".SH NAME",
        rf"{_escaped(title)} \- {_escaped(_summary(command).rstrip('.'))}",
        ".SH SYNOPSIS",
        _usage(context, command),
        ".SH DESCRIPTION",
        *_paragraphs(Help.of(command).paragraphs),
    ]


def _part(context: click.Context, command: click.Command) -> list[str]:
    told = Help.of(command)
    lines = [
        f".SS {_escaped(context.command_path)}",
        _usage(context, command),
        ".PP",
        *_paragraphs(told.paragraphs),
    ]
    lines += _option_list(context, command)
    return [*lines, *(line for text in told.verbatim for line in _verbatim(text))]


def _usage(context: click.Context, command: click.Command) -> str:
    return (
        rf"\fB{_escaped(context.command_path)}\fR {_escaped(' '.join(command.collect_usage_pieces(context)))}"
    )


def _paragraphs(texts: list[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number:
            yield ".PP"
        yield from (_escaped(line) for line in textwrap.wrap(text, 100))


def _options(context: click.Context, command: click.Command) -> list[str]:
    found = _option_list(context, command)
    return [".SH OPTIONS", *found] if found else []


def _option_list(context: click.Context, command: click.Command) -> list[str]:
    lines = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:  # arguments are explained by the text
            lines += [".TP", rf"\fB{_escaped(record[0])}\fR", _escaped(record[1])]
    return lines


def _ending(command: click.Command, others: list[str]) -> list[str]:
    lines = []
    for text in Help.of(command).verbatim:
        title, _, rest = text.partition("\n")
        is_titled = title.endswith(":")
        lines.append(f".SH {_escaped(title.rstrip(':').upper()) if is_titled else 'EXAMPLE'}")
        lines += _verbatim(textwrap.dedent(rest) if is_titled else text)
    lines.append(".SH EXIT STATUS")
    for number, meaning in _STATUS.findall(" ".join((command.epilog or "").replace("\b", "").split())):
        lines += [".TP", rf"\fB{number}\fR", _escaped(meaning.strip())]
    pages = ["ciaosfs", *(f"ciaosfs-{name}" for name in others)]
    references = [
        rf"\fB{_escaped(page)}\fR({SECTION})" for page in pages if page != "ciaosfs" or command is not group
    ]
    return [*lines, ".SH SEE ALSO", ",\n".join(references)]


def _verbatim(text: str) -> list[str]:
    lines = [_escaped(line) or r"\&" for line in text.splitlines()]
    return [".PP", ".RS 4", ".nf", *lines, ".fi", ".RE"]


def _summary(command: click.Command) -> str:
    return command.get_short_help_str(limit=200)


def _escaped(text: str) -> str:
    """For roff: what it would interpret, and hyphens that are to be copied into a shell."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    return rf"\&{text}" if text.startswith((".", "'")) else text


def main() -> None:
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    written = pages()
    for stale in set(directory.glob(f"*.{SECTION}")) - {directory / name for name in written}:
        stale.unlink()
    for name, page in written.items():
        (directory / name).write_text(page)
    print(f"{len(written)} pages in {directory}")


if __name__ == "__main__":
    main()
