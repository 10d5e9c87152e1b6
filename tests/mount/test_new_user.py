"""A new user of a store that tokens guard, with a mount, a token and the README: by commands, from Python, by plain files.

And what the same calls come to with every kind of token, or none: on the socket as on the mount.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from ciaosfs import Ciaos, Config
from ciaosfs.base.errors import AccessError
from ciaosfs.cli.main import run as run_command
from tests.support.actors import Actor
from tests.support.guarded import ALICE, BOB, GuardedMount, guarded_mount

pytestmark = pytest.mark.root

BLOBS = [b"one", b"two"]
CALLS: dict[str, tuple[str, Callable[[Ciaos], object]]] = {
    # what is called: the scope it takes, and the call; keys that a call needs are made anew for each
    "get": ("r", lambda ciaos: ciaos.get("kept")),
    "exists": ("r", lambda ciaos: ciaos.exists("kept")),
    "stat": ("r", lambda ciaos: ciaos.stat("kept").size),
    "keys": ("r", lambda ciaos: list(ciaos.keys("kept"))),
    "put": ("w", lambda ciaos: ciaos.put_binary("new", BLOBS)),
    "update": ("w", lambda ciaos: ciaos.update("kept", BLOBS)),
    "append": ("w", lambda ciaos: ciaos.append("kept", [b"three"])),
    "rename": ("w", lambda ciaos: ciaos.update_key("kept", "new")),
    "delete": ("d", lambda ciaos: ciaos.delete("kept")),
}
SCOPES = ("r", "w", "d", "rw", "rd", "wd", "rwd")


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedMount]:
    with guarded_mount([("alice inside", "alice", "inside")]) as mount:
        yield mount


@pytest.fixture
def folder(guarded: GuardedMount) -> Iterator[Path]:
    """Alice's folder with one key, and nothing else afterwards. Root made them, whom no token binds."""
    folder = guarded.path / "alice"
    _clear(folder)
    folder.chmod(0o700)
    _write(folder / "kept", b"content")
    yield folder
    _clear(folder)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.chown(path, ALICE, ALICE)


def _clear(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def command(*arguments: str) -> tuple[int, str, str]:
    """Run `ciaosfs` here: status, standard output, standard error."""
    content, err = io.BytesIO(), io.StringIO()
    with io.TextIOWrapper(content, write_through=True) as out, redirect_stdout(out), redirect_stderr(err):
        status = run_command(arguments)
        return status, content.getvalue().decode(), err.getvalue()


def with_client(url: str, secret: str | None, name: str) -> object:
    """One of CALLS with a session of its own, by `secret` or by what the kernel session has."""
    with Ciaos(Config(api_url=url, user_access_key=secret)) as ciaos:
        return CALLS[name][1](ciaos)


def refused(actor: Actor, url: str, secret: str | None, name: str) -> bool:
    """Whether the call was refused for want of a token, a scope or a permission; anything else is a failure."""
    try:
        actor.do(with_client, url, secret, name)
    except (PermissionError, AccessError):
        return True
    return False


def test_by_commands(guarded: GuardedMount, folder: Path) -> None:
    mount, (token, dataset) = str(guarded.path), _files(guarded)
    with guarded.actor(ALICE) as alice:
        status, _, said = alice.do(command, "ls", "--url", mount)
        assert status == 8 and "read" in said and "kept" not in said
        assert alice.do(command, "login", "--token-file", str(token), mount)[0] == 0
        assert alice.do(command, "put", "--url", mount, str(dataset), "data/set")[0] == 0
        assert alice.do((folder / "data" / "set").read_bytes) == dataset.read_bytes()
        assert alice.do(command, "append", "--url", mount, "data/set", str(dataset))[0] == 0
        status, listed, _ = alice.do(command, "ls", "--url", mount, "-r", "--json")
        keys = [json.loads(line)["key"] for line in listed.splitlines()]
        assert status == 0 and keys == ["data/set", "kept"]
        assert alice.do(command, "mv", "--url", mount, "data/set", "data/other")[0] == 0
        assert alice.do(command, "cat", "--url", mount, "data/other")[1] == 2 * dataset.read_text()
        assert alice.do(command, "rm", "--url", mount, "data/other", "kept")[0] == 0
        assert alice.do(os.listdir, folder / "data") == []
        assert alice.do(command, "logout", mount)[0] == 0
        assert alice.do(command, "cat", "--url", mount, "data/other")[0] == 8


def test_from_python(guarded: GuardedMount, folder: Path) -> None:
    url, secret = str(guarded.path), guarded.secrets["alice rwd"]

    def day(url: str, secret: str) -> list[object]:
        seen: list[object] = []
        with Ciaos(Config(api_url=url, user_access_key=secret)) as ciaos:
            ciaos.put_binary("runs/1", BLOBS)
            ciaos.append("runs/1", [b"three"])
            seen.append(ciaos.get("runs/1"))
            ciaos.update_key("runs/1", "runs/best")
            seen.append(list(ciaos.keys()))
            ciaos.delete("kept")
            seen.append(ciaos.exists("kept"))
            for key in ("../bob/file", "/bob/file"):
                with pytest.raises(ValueError, match="bob"):
                    ciaos.get(key)
        return seen

    assert day(url, secret) == [[*BLOBS, b"three"], ["kept", "runs/best"], False]
    assert (folder / "runs" / "best").read_bytes() == b"onetwothree"
    with guarded.actor(BOB) as bob:
        # Whoever has the token has its scopes; the permissions of the files hold all the same.
        assert refused(bob, url, secret, "put") and refused(bob, url, secret, "keys")


def test_by_plain_files(guarded: GuardedMount, folder: Path) -> None:
    with guarded.actor(ALICE) as nobody, guarded.actor(ALICE, "alice rwd") as alice:
        assert nobody.fails(os.listdir, folder) and nobody.fails((folder / "kept").read_bytes)
        alice.do((folder / "log").write_text, "first\n")
        alice.do(_append_line, folder / "log")
        alice.do(os.rename, folder / "log", folder / "log.1")
        assert alice.do((folder / "log.1").read_text) == "first\nsecond\n"
        assert sorted(alice.do(os.listdir, folder)) == ["kept", "log.1"]
        alice.do(os.unlink, folder / "kept")
        assert alice.fails(os.listdir, guarded.path / "bob") and alice.fails(os.listdir, guarded.path)


def _append_line(path: Path) -> None:
    with path.open("a") as file:
        file.write("second\n")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("way", ["given", "session"])
def test_each_call_with_each_token(guarded: GuardedMount, folder: Path, name: str, way: str) -> None:
    """`given` on the connection, from a session that has none; or the one the `session` is logged in with."""
    url = str(guarded.path)
    for scopes in SCOPES:
        _clear(folder)
        _write(folder / "kept", b"content")
        token = f"alice {scopes}"
        with guarded.actor(ALICE, token if way == "session" else None) as alice:
            secret = guarded.secrets[token] if way == "given" else None
            assert refused(alice, url, secret, name) == (CALLS[name][0] not in scopes), token


@pytest.mark.parametrize("name", CALLS)
def test_each_call_with_a_token_that_is_none(guarded: GuardedMount, folder: Path, name: str) -> None:
    """No token, one of another user, of another prefix, and one that never was: nothing is done and nothing learned."""
    url = str(guarded.path)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    with guarded.actor(ALICE) as alice:
        assert refused(alice, url, None, name)
        wrong = guarded.secrets["alice rwd"][:-4] + "AAAA"
        assert refused(alice, url, wrong, name)
        if name not in ("exists", "keys", "put"):  # that there is nothing in one's own part is no secret
            with pytest.raises((KeyError, PermissionError)):
                alice.do(with_client, url, guarded.secrets["alice inside"], name)
    with guarded.actor(BOB) as bob:
        if name not in ("exists", "keys", "put"):
            with pytest.raises((KeyError, PermissionError)):
                bob.do(with_client, url, guarded.secrets["bob rwd"], name)
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before
    assert (folder / "kept").read_bytes() == b"content"


def _files(guarded: GuardedMount) -> tuple[Path, Path]:
    token, dataset = guarded.store.base / "new user.token", guarded.store.base / "dataset"
    token.write_text(guarded.secrets["alice rwd"] + "\n")
    dataset.write_text("".join(f"{number}\n" for number in range(1000)))
    for path in (token, dataset):
        os.chown(path, ALICE, ALICE)
        path.chmod(0o600)
    return token, dataset
