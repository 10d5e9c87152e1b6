"""Where the secret of a token comes from, and where a new one goes: a file, the environment, a question; never an argument.

What stands on a command line is in every list of processes. Errors name the source and never what was in it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ciaosfs.base.errors import UsageError

TOKEN_VARIABLE: Final = "CIAOSFS_TOKEN"
TOKEN_FILE_VARIABLE: Final = "CIAOSFS_TOKEN_FILE"
STANDARD_INPUT: Final = Path("-")
_FILE_BYTES_MAX: Final = 4096
_TOKEN: Final = re.compile(r"ciaosfs_[A-Za-z0-9_-]{1,120}", re.ASCII)


def given_token(
    token_file: Path | None = None, environment: Mapping[str, str] = os.environ, *, or_else: str | None = None
) -> str | None:
    """The token in `token_file`, else in the file that CIAOSFS_TOKEN_FILE names, else in CIAOSFS_TOKEN, else `or_else`.

    Raises UsageError when a file cannot be read, or what is found is no token.
    """
    if token_file is not None:
        return read_token_file(token_file)
    if named := environment.get(TOKEN_FILE_VARIABLE):
        return read_token_file(Path(named))
    if text := environment.get(TOKEN_VARIABLE):
        return checked_token(text, TOKEN_VARIABLE)
    return or_else


def read_token_file(path: Path) -> str:
    """The token in a file, "-": on standard input, with white space around it left out. UsageError."""
    source = "Standard input" if path == STANDARD_INPUT else str(path)
    try:
        if path == STANDARD_INPUT:
            content = sys.stdin.buffer.read(_FILE_BYTES_MAX + 1)
        else:
            with path.open("rb") as file:
                content = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"The token file {path} cannot be read: {error.strerror}.") from error
    if len(content) > _FILE_BYTES_MAX:
        raise UsageError(f"{source} is too large to be a token: give a file that holds one and nothing else.")
    return checked_token(content.decode("ascii", errors="replace"), source)


def checked_token(text: str, source: str) -> str:
    """`text` without the white space around it. UsageError, which names the source, when that is no token."""
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            f"{source} holds no token: one begins with 'ciaosfs_' and stands on one line, as 'ciaosfs token create' gave it."
        )
    return token


@contextmanager
def new_token_file(path: Path) -> Iterator[Callable[[str], None]]:
    """A new file that nobody else can read, made before there is a token to lose; yields what writes the token into it.

    If that is not called, the file goes again. Raises UsageError when there is a file already, or none can be made.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} exists already: give the name of a new file for the token.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be made for the token: {error.strerror}.") from error
    is_written = False

    def write(token: str) -> None:
        nonlocal is_written
        os.fchmod(descriptor, 0o600)  # whatever the umask says
        os.write(descriptor, token.encode() + b"\n")
        os.fsync(descriptor)
        is_written = True

    try:
        yield write
    finally:
        os.close(descriptor)
        if not is_written:
            path.unlink()
