"""put, get, ls, cat, stat, append, mv and rm: what they do with folders, what they print, and what they say is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ciaosfs.cli.main import run
from tests.support.faces import standard_streams
from tests.support.mount import MountedStore, environment


@pytest.fixture
def here(shared_mount: MountedStore, workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory of the machine; keys begin with `at(here)`."""
    monkeypatch.setenv("CIAOSFS_URL", str(shared_mount.path))
    (tmp_path / workdir.name).mkdir()
    monkeypatch.chdir(tmp_path / workdir.name)
    return tmp_path / workdir.name


def ciaosfs(*arguments: str, given: bytes = b"", status: int = 0) -> str:
    with standard_streams(given) as out:
        assert run(arguments) == status
    return os.fsdecode(out.getvalue())


def test_trees_go_and_come(here: Path, workdir: Path) -> None:
    at = here.name
    (here / "d" / "e").mkdir(parents=True)
    (here / "d" / "a").write_bytes(b"one")
    (here / "d" / "e" / "b").write_bytes(b"two")
    ciaosfs("put", "-r", "d", f"{at}/")
    ciaosfs("put", "d/a", "d/e/b", f"{at}/flat/")
    assert (workdir / "d" / "e" / "b").read_bytes() == b"two"
    assert ciaosfs("ls", at).splitlines() == [f"{at}/d/", f"{at}/flat/"]
    assert ciaosfs("ls", f"{at}/d").splitlines() == [f"{at}/d/a", f"{at}/d/e/"]
    keys = [f"{at}/d/a", f"{at}/d/e/b", f"{at}/flat/a", f"{at}/flat/b"]
    assert ciaosfs("ls", "-r", f"{at}/").splitlines() == keys
    assert ciaosfs("ls", "-r", "-n", "2", f"{at}/").splitlines() == keys[:2]
    assert [line.split()[-1] for line in ciaosfs("ls", "-l", f"{at}/d").splitlines()] == [
        keys[0],
        f"{at}/d/e/",
    ]
    ciaosfs("get", "-r", f"{at}/d", "back")
    assert (here / "back" / "a").read_bytes() == b"one"
    assert (here / "back" / "e" / "b").read_bytes() == b"two"
    ciaosfs("get", f"{at}/d/a", f"{at}/d/e/b", "back/")
    assert sorted(path.name for path in (here / "back").iterdir()) == ["a", "b", "e"]
    ciaosfs("mv", f"{at}/d/a", f"{at}/flat/c")
    assert ciaosfs("cat", f"{at}/flat/c", f"{at}/flat/b") == "onetwo"
    ciaosfs("rm", "-r", f"{at}/flat")
    assert ciaosfs("ls", "-r", f"{at}/").splitlines() == [f"{at}/d/e/b"]


def test_json_and_standard_streams(here: Path, workdir: Path) -> None:
    key = f"{here.name}/k"
    said = json.loads(ciaosfs("put", "--json", "--meta", "a=b=c", "-", key, given=b"one"))
    assert said == {"type": "put", "key": key, "bytes": 3}
    ciaosfs("append", key, given=b"two")
    told = json.loads(ciaosfs("stat", "--json", key))
    assert (told["size"], told["parts"], told["metadata"]) == (6, [3, 3], {"a": "b=c"})
    assert json.loads(ciaosfs("cat", "--json", key))["parts"] == ["b25l", "dHdv"]
    assert ciaosfs("get", key, "-") == "onetwo"
    assert json.loads(ciaosfs("ls", "--json", key))["size"] == 6
    ciaosfs("put", "--replace", "--meta", "camera_id=seven", "--meta", "run_ns=1", "-", key, given=b"one")
    assert ciaosfs("stat", key).endswith("\nMetadata:\n  camera_id  seven\n  run_ns     1\n")
    ciaosfs("put", "--replace", "-", key, given=b"")
    assert (workdir / "k").read_bytes() == b""
    (here / "k").write_bytes(b"former")
    (here / "k").chmod(0o640)
    ciaosfs("get", key)
    assert (here / "k").read_bytes() == b""
    assert (here / "k").stat().st_mode & 0o777 == 0o640


COMMANDS_THAT_PRINT = ["cat KEY", "get KEY -", "cat --json KEY", "ls KEY", "stat KEY", "ls --help"]


@pytest.mark.parametrize("line", COMMANDS_THAT_PRINT)
def test_who_reads_no_further_ends_a_command_quietly(here: Path, workdir: Path, line: str) -> None:
    (workdir / "k").write_bytes(bytes(300_000))
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = _apart(line.replace("KEY", f"{here.name}/k"), writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("line", COMMANDS_THAT_PRINT[:-1])
def test_output_that_cannot_be_written_is_named(here: Path, workdir: Path, line: str) -> None:
    (workdir / "k").write_bytes(bytes(300_000))
    with open("/dev/full", "wb") as full:
        done = _apart(line.replace("KEY", f"{here.name}/k"), full.fileno())
    said = "ciaosfs: Standard output could not be written: No space left on device.\n"
    assert (done.returncode, done.stderr) == (1, said)


def _apart(line: str, stdout: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ciaosfs", *line.split()]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment(), check=False
    )


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["get", "none"], 1, "There is no key 'none': 'ciaosfs ls'"),
        (["rm", "none"], 1, "There is no key 'none'"),
        (["rm", "-f", "none"], 0, ""),
        (["rm", "-r", "none"], 1, "There is no key below 'none/'"),
        (["append", "none"], 1, "There is no key 'none'"),
        (["put", "file", "AT/here"], 1, "already: 'put --replace'"),
        (["mv", "AT/here", "AT/there"], 1, "There is a key"),
        (["get", "AT"], 1, "is a folder: -r"),
        (["append", "AT", "/dev/null"], 1, "is a folder: 'ciaosfs ls' lists"),
        (["cat", "AT"], 1, "is a folder: 'ciaosfs ls' lists"),
        (["put", "file", "../x"], 2, "'..'"),
        (["put", "-"], 2, "'ciaosfs put - KEY'"),
        (["put", "."], 2, "'ciaosfs put -r'"),
        (["put", "a", "b", "c"], 2, "ends with a slash"),
        (["put", "--meta", "x", "file"], 2, "NAME=VALUE"),
        (["put", "missing", "AT/new"], 1, "missing: No such file"),
        (["ls", "--url", "http://x"], 2, "no address of a store"),
        (["ls", "--url", "unix:///none.sock"], 6, "does not answer"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    here: Path,
    workdir: Path,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    words: str,
) -> None:
    (here / "file").write_bytes(b"x")
    for name in ("here", "there"):
        (workdir / name).write_bytes(b"x")
    ciaosfs(*(word.replace("AT", here.name) for word in arguments), status=status)
    said = capfd.readouterr().err
    assert words in said
    assert said.count("\n") == (1 if words else 0)
