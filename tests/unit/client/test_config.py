"""Where each value comes from, what cannot be, and that the token is shown nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ciaosfs.base import limits
from ciaosfs.client.config import Config, Settings

SECRET = "ciaosfs_7_" + "s" * 43
MODE = 0o600


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "ciaosfs").mkdir()
    return tmp_path


def settled(home: Path, config: Config, stored: str = "", **environment: str) -> Settings:
    path = home / "ciaosfs" / "client.toml"
    path.write_text(stored)
    path.chmod(MODE)
    return config.settled({"XDG_CONFIG_HOME": str(home), **environment})


def test_with_nothing_given(tmp_path: Path) -> None:
    found = Config().settled({"HOME": str(tmp_path)})
    assert found == Settings("", None, None, "", None, limits.CLIENT_TIMEOUT_S, limits.CLIENT_RETRY_S)


FILE = 'user_id = "file"\napi_url = "/file"\ntoken_file = "/file/token"\ntimeout_s = 3\n'
ENVIRONMENT = {"CIAOSFS_USER": "env", "CIAOSFS_URL": "/env", "CIAOSFS_TOKEN_FILE": "/env/token"}


@pytest.mark.parametrize(
    ("config", "stored", "environment", "expected"),
    [
        (Config(), FILE, {}, ("file", "/file", "", "/file/token")),
        (Config(), FILE, ENVIRONMENT, ("env", "/env", "", "/env/token")),
        (Config(), "", ENVIRONMENT, ("env", "/env", "", "/env/token")),
        (Config("me", "/mine", SECRET), FILE, ENVIRONMENT, ("me", "/mine", SECRET, None)),
        (Config(token_file="/mine/token"), FILE, ENVIRONMENT, ("env", "/env", "", "/mine/token")),
        (Config("me"), FILE, {"CIAOSFS_TOKEN": SECRET}, ("me", "/file", SECRET, None)),
        (Config(), f'user_access_key = "{SECRET}"', {}, ("", None, SECRET, None)),
    ],
)
def test_arguments_then_environment_then_file(
    home: Path, config: Config, stored: str, environment: dict[str, str], expected: tuple[str | None, ...]
) -> None:
    found = settled(home, config, stored, **environment)
    place = None if found.place is None else str(found.place)
    token_file = None if found.token_file is None else str(found.token_file)
    assert (found.user_id, place, found.token, token_file) == expected


@pytest.mark.parametrize(
    ("url", "socket_path", "place"),
    [
        ("unix:///run/x.sock", Path("/run/x.sock"), None),
        ("/mnt/ciaos", None, Path("/mnt/ciaos")),
        ("~/ciaos", None, Path("~/ciaos").expanduser()),
        ("mnt", None, Path.cwd() / "mnt"),
        (Path("/mnt/ciaos"), None, Path("/mnt/ciaos")),
    ],
)
def test_addresses(home: Path, url: Any, socket_path: Path | None, place: Path | None) -> None:
    found = settled(home, Config(api_url=url))
    assert (found.socket_path, found.place) == (socket_path, place)


@pytest.mark.parametrize(
    ("config", "stored", "words"),
    [
        (Config(api_url="http://localhost:9710"), "", "no address"),
        (Config(api_url="unix://x.sock"), "", "names no socket"),
        (Config(user_access_key=SECRET, token_file="/t"), "", "one of the two"),
        (Config(timeout_s=0), "", "timeout_s"),
        (Config(timeout_s=-1), "", "timeout_s"),
        (Config(retry_s=1e9), "", "retry_s"),
        (Config(retry_s=float("nan")), "", "retry_s"),
        (Config(), "retry_s = true", "retry_s"),
        (Config(), "user = 'x'", "not known"),
        (Config(), "user_id = 7", "quotation"),
        (Config(), "user_id = ", "TOML"),
        (Config(), "# " + "x" * limits.CLIENT_CONFIG_BYTES_MAX, "too large"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(home: Path, config: Config, stored: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        settled(home, config, stored)
    assert str(caught.value).endswith(".")
    assert SECRET not in str(caught.value)


def test_a_file_with_a_token_is_for_its_owner_alone(home: Path) -> None:
    path = home / "ciaosfs" / "client.toml"
    path.write_text(f'user_access_key = "{SECRET}"')
    path.chmod(0o640)
    with pytest.raises(ValueError, match="chmod 600"):
        Config().settled({"XDG_CONFIG_HOME": str(home)})


def test_the_token_is_not_shown(home: Path) -> None:
    config = Config("me", "/mnt", SECRET)
    assert SECRET not in f"{config!r} {config} {settled(home, config)!r}"
