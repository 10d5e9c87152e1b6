"""What the commands on keys share: how they are told where and who, and what they say when something is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from ciaosfs.base.errors import CiaosError, FsError, UsageError
from ciaosfs.cli import output
from ciaosfs.cli.tokenoption import token_file_option
from ciaosfs.client.ciaos import Ciaos
from ciaosfs.client.config import Config
from ciaosfs.client.secret import STANDARD_INPUT, read_token_file

STDIO = "-"
"""Standard input or output instead of a file."""

Function = TypeVar("Function", bound=Callable[..., Any])


def keyed(function: Function) -> Function:
    """The options of every command on keys; they arrive as `url`, `user`, `token_file` and `as_json`."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON lines."),
        token_file_option,
        click.option("--user", metavar="NAME", help="Whose keys are meant; also $CIAOSFS_USER."),
        click.option(
            "--url",
            metavar="URL",
            help="Any path in the mount, or unix:///path/of/the.sock; also $CIAOSFS_URL. The only store that is mounted "
            "need not be named.",
        ),
    ):
        function = option(function)
    return function


@contextmanager
def session(url: str | None, user: str | None, token_file: Path | None) -> Iterator[Ciaos]:
    """A session with the store that the options name; what is refused in it comes out as sentences."""
    token = None
    if token_file == STANDARD_INPUT:  # which can be read once
        token, token_file = read_token_file(token_file), None
    config = Config(user_id=user, api_url=url, user_access_key=token, token_file=token_file)
    with as_sentences(), Ciaos(config) as ciaos:
        yield ciaos


@contextmanager
def as_sentences() -> Iterator[None]:
    """What the client raises in this context comes out as a CiaosError, with the next thing to try."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error
    except (KeyError, OSError) as error:
        if not isinstance(error.__cause__, CiaosError):
            raise  # a local file, or our bug
        raise sentence_of(error) from error


def sentence_of(error: KeyError | OSError) -> CiaosError:
    """What the client raised because the daemon refused something."""
    cause = error.__cause__
    assert isinstance(cause, CiaosError)
    if isinstance(error, KeyError):
        return FsError(cause.errno, f"There is no key {error.args[0]!r}: 'ciaosfs ls' lists those there are.")
    if isinstance(error, FileExistsError):
        sentence = (
            f"There is a key {error.filename!r} already: 'put --replace' puts over it, 'rm' removes it."
        )
        return FsError(cause.errno, sentence)
    if isinstance(error, IsADirectoryError):
        way = "-r takes every key in it" if _takes_folders() else "'ciaosfs ls' lists the keys in it"
        return FsError(cause.errno, f"{error.filename!r} is a folder: {way}.")
    return cause


def _takes_folders() -> bool:
    """Whether the command that runs has -r."""
    context = click.get_current_context()
    return any(parameter.name == "recursive" for parameter in context.command.params)


class Failures:
    """Of several things to do, those that could not be done: each is said at once, the others are done."""

    def __init__(self) -> None:
        self._worst = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """One of the things. What says that nothing more can be done (no daemon) is raised."""
        try:
            with as_sentences():
                yield
        except FsError as error:
            self._note(error.message, error.exit_code)
        except OSError as error:
            self._note(f"{error.filename or 'the system'}: {error.strerror}.", 1)

    def _note(self, sentence: str, exit_code: int) -> None:
        output.talk(f"ciaosfs: {sentence}")
        self._worst = max(self._worst, exit_code)

    def expect(self, count: int, prefix: str) -> None:
        """Note it when there is no key below `prefix`."""
        if not count:
            self._note(f"There is no key below {prefix!r}: 'ciaosfs ls' lists those there are.", 1)

    @property
    def exit_status(self) -> int:
        return self._worst


def below(key: str) -> str:
    """What every key below `key` begins with."""
    return key.rstrip("/") + "/" if key.rstrip("/") else ""


def split_destination(arguments: Sequence[str], what: str) -> tuple[list[str], str | None]:
    """(sources, destination) as cp(1) takes them: one alone has none, of two the second is it, of more the last, if it
    ends with a slash. `what` names the sources."""
    if len(arguments) == 1:
        return list(arguments), None
    *sources, destination = arguments
    if not destination:
        raise UsageError(f"The place for {what} to go is empty: name one, or '.' for the current directory.")
    if len(sources) > 1 and not destination.endswith("/"):
        raise UsageError(f"Several {what} need a place to go that ends with a slash, not {destination!r}.")
    return sources, destination
