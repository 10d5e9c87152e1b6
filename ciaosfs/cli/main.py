"""The `ciaosfs` command: finds the subcommand, and turns errors into one sentence and an exit status.

A subcommand's module is imported when it is run, so that `ciaosfs --help` and each command start quickly.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from ciaosfs import __version__
from ciaosfs.base.errors import CiaosError, OutputError

COMMANDS = (
    "mkfs",
    "mount",
    "umount",
    "status",
    "sync",
    "top",
    "metrics",
    "doctor",
    "job",
    "scrub",
    "drive",
    "user",
    "token",
    "access",
    "login",
    "logout",
    "whoami",
    "run",
    "check",
    "recover",
    "inspect",
    "put",
    "get",
    "ls",
    "cat",
    "stat",
    "append",
    "mv",
    "rm",
    "completion",
)
INTERRUPTED = 130
EXIT_STATUS = """\b
Exit status: 0 success, 1 failure, 2 wrong usage, 3 the store cannot be used as
it stands, 4 the store is in use, 5 mounting or unmounting was refused, 6 the
daemon did not answer or ended badly, 7 what is stored is damaged, 8 a token
is missing or does not allow it, 130 interrupted, 141 nobody reads the output
any more."""


class Commands(click.Group):
    """Loads `cmd_NAME.command` for the subcommand NAME."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"ciaosfs.cli.cmd_{cmd_name}").command
        parts = command.commands.values() if isinstance(command, click.Group) else ()
        for each in (command, *parts):
            each.epilog = EXIT_STATUS
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with _unread():  # --help
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _unread():
            return super().invoke(ctx)


@contextmanager
def _unread() -> Iterator[None]:
    """A broken pipe, which click would end with status 1, is standard output that nobody reads."""
    try:
        yield
    except BrokenPipeError as error:
        raise OutputError(error) from error


@click.group(cls=Commands, epilog=EXIT_STATUS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def group() -> None:
    """Make, mount and look after ciaosfs stores: erasure-coded file systems over several drives.

    \b
    Example:
      ciaosfs mkfs /srv/store --drive /disk1/ciaos --drive /disk2/ciaos \\
              --drive /disk3/ciaos --data 2 --parity 1
      ciaosfs mount /srv/store /mnt/ciaos
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        outcome = group.main(arguments, prog_name="ciaosfs", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        _say(error.format_message())
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "ciaosfs"
        _say(f"{path}: {error.format_message()} Try '{path} --help'.")
        return 2
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OutputError as error:
        # What is still to be flushed would fail again, and be a traceback at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not error.is_unread:
            _say(f"ciaosfs: {error.message}")
        return error.exit_code
    except CiaosError as error:
        _say(f"ciaosfs: {error.message}")
        return error.exit_code
    except OSError as error:
        _say(f"ciaosfs: {error.filename or 'the system'}: {error.strerror}.")
        return 1
    return outcome if isinstance(outcome, int) else 0


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)


if __name__ == "__main__":
    main()
