"""The client with a token: from each source, what is refused without the scope, and that nobody else sees it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from ciaosfs import Ciaos, Config
from ciaosfs.base.errors import AccessError
from tests.support.mount import MountedStore, environment

USER = "ann"


@pytest.fixture(scope="module")
def tokens(shared_mount: MountedStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The secret of a token of the user's for each scope, and one for all."""
    files = tmp_path_factory.mktemp("tokens")
    mount = str(shared_mount.path)
    (shared_mount.path / "lab").mkdir()
    shared_mount.run("user", "add", USER, mount, "--folder", "/lab/ann")
    secrets = {}
    for name, scopes in {"all": ("read", "write", "delete"), "read": ("read",), "write": ("write",)}.items():
        given = [word for scope in scopes for word in ("--scope", scope)]
        shared_mount.run("token", "create", mount, "--user", USER, *given, "--out", str(files / name))
        secrets[name] = (files / name).read_text().strip()
    return secrets


SOURCES: dict[str, Callable[[str, Path, pytest.MonkeyPatch], Config]] = {}


def source(
    work: Callable[[str, Path, pytest.MonkeyPatch], Config],
) -> Callable[[str, Path, pytest.MonkeyPatch], Config]:
    SOURCES[work.__name__] = work
    return work


@source
def argument(secret: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    return Config(user_access_key=secret)


@source
def file(secret: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    (path / "token").write_text(f"{secret}\n")
    return Config(USER, token_file=path / "token")


@source
def variable(secret: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("CIAOSFS_TOKEN", secret)
    return Config()


@source
def file_variable(secret: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("CIAOSFS_TOKEN_FILE", str(path / "token"))
    (path / "token").write_text(secret)
    return Config()


@source
def configuration(secret: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(path))
    (path / "ciaosfs").mkdir()
    (path / "ciaosfs" / "client.toml").write_text(f'token_file = "{path}/token"\nuser_id = "{USER}"\n')
    (path / "token").write_text(secret)
    return Config()


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_each_source_of_the_token(
    shared_mount: MountedStore,
    tokens: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: Callable[[str, Path, pytest.MonkeyPatch], Config],
) -> None:
    """Keys are below the folder of its user."""
    monkeypatch.setenv("CIAOSFS_URL", str(shared_mount.path))
    with Ciaos(source(tokens["all"], tmp_path, monkeypatch)) as ciaos:
        ciaos.put_binary("dir/key", [b"x"])
        assert (shared_mount.path / "lab/ann/dir/key").read_bytes() == b"x"
        assert list(ciaos.keys()) == ["dir/key"]
        ciaos.delete("dir/key")


def test_an_owner_may_speak_for_a_user(shared_mount: MountedStore, tokens: dict[str, str]) -> None:
    (shared_mount.path / "lab/ann/mine").write_bytes(b"x")
    with Ciaos(Config(USER, shared_mount.path)) as ciaos:
        assert ciaos.get("mine") == [b"x"]
        assert list(ciaos.keys("m")) == ["mine"]
        ciaos.delete("mine")
    with Ciaos(Config("new", shared_mount.path)) as ciaos:
        ciaos.put_binary("k", [b"x"])
    assert (shared_mount.path / "new/k").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("token", "scope", "call"),
    [
        ("read", "write", lambda ciaos: ciaos.put_binary("k", [b"x"])),
        ("read", "write", lambda ciaos: ciaos.update("k", [b"x"])),
        ("read", "write", lambda ciaos: ciaos.append("k", [b"x"])),
        ("read", "write", lambda ciaos: ciaos.update_key("k", "l")),
        ("read", "write", lambda ciaos: ciaos.open("k", "wb")),
        ("read", "delete", lambda ciaos: ciaos.delete("k")),
        ("write", "read", lambda ciaos: ciaos.get("k")),
        ("write", "read", lambda ciaos: ciaos.exists("k")),
        ("write", "read", lambda ciaos: list(ciaos.keys())),
        ("write", "read", lambda ciaos: ciaos.open("k")),
    ],
)
def test_what_the_token_does_not_allow(
    shared_mount: MountedStore,
    tokens: dict[str, str],
    token: str,
    scope: str,
    call: Callable[[Ciaos], object],
) -> None:
    config = Config(api_url=shared_mount.path, user_access_key=tokens[token])
    with Ciaos(config) as ciaos, pytest.raises(PermissionError, match=f"scope {scope}"):
        call(ciaos)


def test_a_token_that_is_none_or_of_another_user(shared_mount: MountedStore, tokens: dict[str, str]) -> None:
    wrong = tokens["all"][:-1] + ("A" if tokens["all"][-1] != "A" else "B")
    for config, words in (
        (Config(api_url=shared_mount.path, user_access_key=wrong), "not valid"),
        (Config("bob", shared_mount.path, tokens["all"]), "not of bob"),
    ):
        with Ciaos(config) as ciaos, pytest.raises(PermissionError, match=words) as caught:
            ciaos.get("k")
        assert isinstance(caught.value.__cause__, AccessError)
        shown = "".join(traceback.format_exception(caught.value))
        assert wrong not in shown
        assert tokens["all"] not in shown


LOOK = """
import os, sys
from pathlib import Path
from ciaosfs import Ciaos, Config
with Ciaos(Config()) as ciaos:
    assert not ciaos.exists("none")
    print(repr(ciaos), vars(ciaos), repr(Config()), Path("/proc/self/cmdline").read_bytes())
"""


def test_the_secret_is_nowhere_to_be_seen(
    shared_mount: MountedStore, tokens: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tokens["all"]
    (tmp_path / "token").write_text(secret)
    where = {"CIAOSFS_URL": str(shared_mount.path), "CIAOSFS_TOKEN_FILE": str(tmp_path / "token")}
    with caplog.at_level(logging.DEBUG):
        done = subprocess.run(
            [sys.executable, "-c", LOOK],
            env={**environment(), **where},
            capture_output=True,
            text=True,
            check=True,
        )
        said = [done.stdout, done.stderr]
        for arguments in (("stat", "none"), ("put", "/dev/null", "null"), ("ls", "--json"), ("rm", "null")):
            ran = shared_mount.run(*arguments, "--token-file", str(tmp_path / "token"), check=False)
            said += [ran.stdout, ran.stderr]
        with Ciaos(Config(api_url=shared_mount.path, user_access_key=secret)) as ciaos:
            ciaos.put_binary("k", [b"x"])
            said += [repr(ciaos), json.dumps(str(vars(ciaos)))]
            ciaos.delete("k")
    body = secret.rpartition("_")[2]
    for text in (*said, caplog.text, shared_mount.log(), *map(os.fsdecode, _command_lines())):
        assert body not in text


def _command_lines() -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return found
