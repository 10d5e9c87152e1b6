"""Whom a client speaks for and where: arguments, else the environment, else the user's file, else what is there.

Each value is looked for by itself: one may be an argument, the next come from the environment. The token is not shown by
`repr`, and it is read from its file whenever a connection is made, so that a renewed one is taken up.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ciaosfs.base import limits
from ciaosfs.base.errors import UsageError
from ciaosfs.client.secret import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, checked_token

FILE_NAME = Path("ciaosfs") / "client.toml"
FILE_NAMES = ("user_id", "api_url", "user_access_key", "token_file", "timeout_s", "retry_s")
USER_VARIABLE = "CIAOSFS_USER"
URL_VARIABLE = "CIAOSFS_URL"
SOCKET_SCHEME = "unix://"


@dataclass(frozen=True, slots=True)
class Config:
    """What `Ciaos` is given. Everything may be left out.

    user_id: whose keys are meant. With a token it must be the token's user; without one, the owner of the store may
        name any. None: the token's user, or for the owner the root of the mount.
    api_url: `unix:///path/of/the.sock`, or any path in the mount. None: the only store that is mounted.
    user_access_key: the token itself. `token_file` names the file it is in instead.
    timeout_s: how long the daemon may be silent before a call fails.
    retry_s: how long what may be tried again is tried again.
    """

    user_id: str | None = None
    api_url: str | os.PathLike[str] | None = None
    user_access_key: str | None = field(default=None, repr=False)
    token_file: str | os.PathLike[str] | None = None
    timeout_s: float | None = None
    retry_s: float | None = None

    def settled(self, environment: Mapping[str, str] | None = None) -> Settings:
        """What holds after environment and file were asked, too. Raises ValueError for values that cannot be."""
        environment = os.environ if environment is None else environment
        stored = _stored(_file_of(environment))
        token_file: str | os.PathLike[str] | None
        if self.user_access_key or self.token_file:
            token, token_file = self.user_access_key, self.token_file
        elif environment.get(TOKEN_VARIABLE) or environment.get(TOKEN_FILE_VARIABLE):
            token_file = environment.get(TOKEN_FILE_VARIABLE)
            token = None if token_file else environment.get(TOKEN_VARIABLE)
        else:
            token, token_file = stored.get("user_access_key"), stored.get("token_file")
        if token and token_file:
            raise ValueError("Both a token and the file of one are given: give one of the two.")
        url = self.api_url or environment.get(URL_VARIABLE) or stored.get("api_url")
        socket_path, place = _place(os.fspath(url) if url else "")
        return Settings(
            user_id=self.user_id or environment.get(USER_VARIABLE) or stored.get("user_id") or "",
            socket_path=socket_path,
            place=place,
            token=_checked(token) if token else "",
            token_file=Path(token_file).expanduser() if token_file else None,
            timeout_s=_seconds("timeout_s", self.timeout_s, stored, limits.CLIENT_TIMEOUT_S),
            retry_s=_seconds("retry_s", self.retry_s, stored, limits.CLIENT_RETRY_S),
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """A `Config` in which nothing is open. `socket_path` and `place` (a path in a mount) are not both given; with
    neither the only mounted store is meant. The token is empty where there is none."""

    user_id: str
    socket_path: Path | None
    place: Path | None
    token: str = field(repr=False)
    token_file: Path | None
    timeout_s: float
    retry_s: float


def _file_of(environment: Mapping[str, str]) -> Path:
    home = environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME") or Path.home()) / ".config"
    return Path(home) / FILE_NAME


def _is_hidden(path: Path) -> bool:
    """Whether it lies where this user may not even look: su(1) and sudo(8) may leave HOME as it was."""
    try:
        path.lstat()
    except PermissionError:
        return True
    return False


def _stored(path: Path) -> dict[str, Any]:
    """What the file says; nothing when there is none."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > limits.CLIENT_CONFIG_BYTES_MAX:
                raise ValueError(f"{path} is too large to be a configuration: remove it.")
            fields = tomllib.load(file)
            mode = os.fstat(file.fileno()).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        if _is_hidden(path):
            return {}
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}.") from None
    for name, value in fields.items():
        if name not in FILE_NAMES:
            raise ValueError(f"{path} has {name!r}, which is not known: there are {', '.join(FILE_NAMES)}.")
        if name not in ("timeout_s", "retry_s") and not isinstance(value, str):
            raise ValueError(f"{path} has a {name} that is no text: put it between quotation marks.")
    if fields.get("user_access_key") and stat.S_IMODE(mode) & 0o077:
        raise ValueError(f"{path} has a token in it and others may read it: chmod 600 {path}.")
    return fields


def _place(url: str) -> tuple[Path | None, Path | None]:
    """(the socket, the path in a mount) that an address means."""
    if url.startswith(SOCKET_SCHEME):
        path = url.removeprefix(SOCKET_SCHEME)
        if not path.startswith("/"):
            raise ValueError(
                f"{url!r} names no socket: give unix:///path/of/the.sock or a path in the mount."
            )
        return Path(path), None
    if "://" in url:
        raise ValueError(
            f"{url!r} is no address of a store: give unix:///path/of/the.sock or a path in the mount."
        )
    return None, Path(url).expanduser().absolute() if url else None


def _checked(token: str) -> str:
    try:
        return checked_token(token, "What is given as user_access_key")
    except UsageError as error:
        raise ValueError(error.message) from None


def _seconds(name: str, given: float | None, stored: Mapping[str, Any], default: float) -> float:
    value = given if given is not None else stored.get(name, default)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= limits.CLIENT_PATIENCE_S_MAX or (name == "timeout_s" and not value):
        raise ValueError(f"{name} is {value!r}: give seconds, at most {limits.CLIENT_PATIENCE_S_MAX:g}.")
    return float(value)
