"""`ciaosfs login`, `logout`, `whoami` and `run` on a guarded mount."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ciaosfs.cli.main import run as run_command
from tests.support.actors import Actor
from tests.support.guarded import ALICE, GuardedMount, guarded_mount
from tests.support.mount import COMMAND_S, environment, is_alive, wait_until
from tools.bench.targets import ciaosfs_command

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedMount]:
    with guarded_mount() as mount:
        (mount.path / "alice" / "file").write_text("content\n")
        yield mount


@pytest.fixture
def token_file(guarded: GuardedMount) -> Path:
    return save_token(guarded, "alice rwd")


def save_token(guarded: GuardedMount, name: str) -> Path:
    path = guarded.store.base / f"{name}.token"
    path.write_text(guarded.secrets[name] + "\n")
    os.chown(path, ALICE, ALICE)
    path.chmod(0o600)
    return path


def command_in_process(arguments: Sequence[str]) -> tuple[int, str]:
    """Run a command here; its status and all it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = run_command(arguments)
    return status, said.getvalue()


def ciaosfs(actor: Actor, *arguments: object) -> tuple[int, str]:
    return actor.do(command_in_process, [str(argument) for argument in arguments])


def job(token_file: Path, guarded: GuardedMount, *words: object, **options: Any) -> subprocess.Popen[str]:
    """`ciaosfs run` as a process of its own, as root."""
    command = [*ciaosfs_command(), "run", "--mount", guarded.path, "--token-file", token_file, "--", *words]
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), **options.pop("env", {})},
        **options,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=COMMAND_S)
    return process.returncode, out, err


def test_a_session_from_login_to_logout(guarded: GuardedMount, token_file: Path) -> None:
    mount, file = guarded.path, guarded.path / "alice" / "file"
    with guarded.actor(ALICE) as alice:
        status, said = ciaosfs(alice, "whoami", mount)
        assert (status, said) == (8, "Nobody: this session is not logged in.\n")
        status, said = ciaosfs(alice, "login", "--token-file", token_file, mount)
        assert status == 0 and "as alice with token" in said and "read, write, delete below /alice" in said
        assert guarded.secrets["alice rwd"] not in said
        assert alice.do(os.stat, file).st_size == 8
        status, said = ciaosfs(alice.fork(), "whoami", "--json", mount)
        fields = json.loads(said)
        assert status == 0 and fields["by"] == "session" and fields["live"] and fields["user"] == "alice"
        assert ciaosfs(alice, "logout", mount) == (0, "")
        assert alice.fails(os.stat, file) != 0
        assert ciaosfs(alice, "logout", mount) == (0, "This session was not logged in.\n")
    with guarded.actor(0) as root:
        assert ciaosfs(root, "whoami", mount) == (0, "The owner of the store, who needs no token.\n")


def test_login_refuses_what_is_no_token(guarded: GuardedMount) -> None:
    wrong = guarded.store.base / "wrong.token"
    wrong.write_text(guarded.secrets["alice r"][:-4] + "AAAA")
    wrong.chmod(0o644)
    with guarded.actor(ALICE) as alice:
        status, said = ciaosfs(alice, "login", "--token-file", wrong, guarded.path)
        assert status == 8 and "not valid" in said
        status, said = ciaosfs(alice, "login", guarded.path)
        assert status == 2 and "--token-file" in said
        assert ciaosfs(alice, "whoami", guarded.path)[0] == 8


def test_a_job_has_the_token_and_nobody_else(guarded: GuardedMount, token_file: Path) -> None:
    inside, outside = guarded.path / "alice" / "file", guarded.path / "bob"
    script = f'cat {inside}; stat {outside} >/dev/null 2>&1 || echo "closed"; ps -o sid= -p $$ | tr -d " "; echo $$'
    secret = {"CIAOSFS_TOKEN": guarded.secrets["alice rwd"]}
    status, out, err = finished(job(token_file, guarded, "sh", "-c", script + "; env; exit 7", env=secret))
    lines = out.splitlines()
    assert (status, err, lines[:2]) == (7, "", ["content", "closed"])
    assert lines[2] == lines[3]
    assert guarded.secrets["alice rwd"] not in out
    with guarded.actor(ALICE) as alice:
        read = ["run", "--mount", guarded.path, "--token-file", token_file, "--", "cat", inside]
        assert ciaosfs(alice, *read)[0] == 0
        assert alice.fails(os.stat, inside) != 0


def test_how_a_job_ends_is_told_as_a_shell_tells_it(guarded: GuardedMount, token_file: Path) -> None:
    assert finished(job(token_file, guarded, "sh", "-c", "kill -TERM $$"))[0] == 128 + signal.SIGTERM
    status, _, said = finished(job(token_file, guarded, "no-such-program"))
    assert (status, said) == (127, "ciaosfs: no-such-program: No such file or directory.\n")
    status, _, said = finished(job(token_file, guarded, token_file))
    assert status == 126 and "Permission denied" in said
    wrong = save_token(guarded, "alice r")
    wrong.write_text(guarded.secrets["alice r"][:-4] + "AAAA")
    status, out, said = finished(job(wrong, guarded, "echo", "started"))
    assert status == 8 and out == "" and "not valid" in said


def test_signals_reach_the_job(guarded: GuardedMount, token_file: Path) -> None:
    script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do read line; done"
    process = job(token_file, guarded, "sh", "-c", script, stdin=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.stdin.write("\n")
    assert finished(process)[:2] == (3, "got it\n")


@pytest.mark.parametrize("how", ["it ends", "it is killed"])
def test_what_a_job_leaves_running_has_nothing(guarded: GuardedMount, token_file: Path, how: str) -> None:
    """Also when `ciaosfs run` is killed and can take nothing back."""
    result = guarded.store.base / f"{how}.result"
    result.touch()
    result.chmod(0o666)
    look = f"stat {guarded.path}/alice/file >/dev/null 2>&1"
    watch = (
        f"(while {look}; do echo yes >>'{result}'; sleep 0.02; done; echo no >>'{result}') >/dev/null 2>&1 &"
    )
    stay = "" if how == "it ends" else "wait"
    with guarded.actor(ALICE) as alice:
        command = ["run", "--mount", str(guarded.path), "--token-file", str(token_file)]
        runner = alice.do(start, [*command, "--", "sh", "-c", f"{watch} {look} && {stay or ':'}"])
        if how == "it is killed":
            wait_until(lambda: "yes" in result.read_text(), "the job did not begin")
            os.kill(runner, signal.SIGKILL)
        wait_until(lambda: not is_alive(runner), "the command did not end")
        wait_until(lambda: result.read_text().endswith("no\n"), "the token goes on")


def start(arguments: list[str]) -> int:
    """A command in a process of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(run_command(arguments))
        finally:
            sys.stderr.flush()
            os._exit(1)
    return pid
