"""The key/value client on a mount that is in use: what it does is what plain file calls see, and the other way round."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ciaosfs import Ciaos, Config
from ciaosfs.base import limits
from tests.support.faces import Client, Commands, Face, Plain
from tests.support.mount import MountedStore, environment

MIB = limits.MIB
LARGE = bytes(range(256)) * (3 * 4096) + b"end"


@pytest.fixture(scope="module")
def ciaos(shared_mount: MountedStore) -> Iterator[Ciaos]:
    with Ciaos(Config(api_url=shared_mount.path)) as ciaos:
        yield ciaos


@pytest.fixture
def prefix(workdir: Path) -> str:
    """Keys of the test begin with it."""
    return f"{workdir.name}/"


def test_three_ways_in_are_one_store(
    shared_mount: MountedStore, ciaos: Ciaos, workdir: Path, prefix: str, tmp_path: Path
) -> None:
    """Whoever did it: whoever looks sees it at once."""
    faces: list[Face] = [
        Plain(workdir),
        Client(ciaos, prefix),
        Commands(shared_mount.path, prefix, tmp_path / "scratch"),
    ]
    for number, one in enumerate(faces):
        for other in faces:
            key, new = f"a/ä {number}", f"b/{number}"
            one.put(key, b"one")
            assert other.get(key) == b"one"
            assert other.size(key) == 3
            other.append(key, b" two")
            assert one.get(key) == b"one two"
            one.replace(key, LARGE)
            assert other.get(key) == LARGE
            assert one.size(key) == len(LARGE)
            other.replace(key, b"")
            assert one.get(key) == b""
            one.append(key, b"x")
            other.rename(key, new)
            assert one.keys() == other.keys() == [new]
            assert one.get(new) == b"x"
            one.delete(new)
            assert other.keys() == []


SEED_OPERATIONS = """
import json, sys
from ciaosfs import Ciaos, Config

url, folder, file = sys.argv[1:]
refusals = {}

def refused(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        refusals[f"{call.__name__} {arguments[0]}"] = [type(error).__name__, str(error.args[0])]

with Ciaos(Config(api_url=url)) as ciaos:
    ciaos.put(file, folder + "file")
    ciaos.put_binary(folder + "list", [b"one", b"", b"three"])
    ciaos.append(folder + "list", [b"four", b"five"])
    ciaos.put_binary(folder + "old", [b"x"])
    ciaos.update(folder + "old", [b"new", b"er"])
    ciaos.update_key(folder + "old", folder + "moved")
    ciaos.put_binary(folder + "gone", [b"x"])
    ciaos.delete(folder + "gone")
    refused(ciaos.put, file, folder + "file")
    refused(ciaos.put_binary, folder + "list", [b"x"])
    for call in (ciaos.get, ciaos.delete):
        refused(call, folder + "none")
    for call in (ciaos.update, ciaos.append):
        refused(call, folder + "none", [b"x"])
    refused(ciaos.update_key, folder + "none", folder + "other")
    refused(ciaos.update_key, folder + "moved", folder + "file")
    lists = {key: [part.decode() for part in ciaos.get(key)] for key in ciaos.keys(folder)}
    print(json.dumps({"lists": lists, "refusals": refusals}))
"""


def test_the_seed_operations_from_another_process_while_the_mount_is_in_use(
    shared_mount: MountedStore, workdir: Path, prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "local").write_bytes(b"content of a file")
    busy = workdir / "busy"
    busy.mkdir()
    is_over = threading.Event()

    def use() -> None:
        number = 0
        while not is_over.is_set():
            (busy / f"{number % 50}").write_bytes(b"u" * (number % 5000))
            number += 1

    user = threading.Thread(target=use)
    user.start()
    try:
        command = [
            *(sys.executable, "-c", SEED_OPERATIONS),
            *(str(shared_mount.path), prefix + "keys/", str(tmp_path / "local")),
        ]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    finally:
        is_over.set()
        user.join()
    assert done.stderr == ""
    said = json.loads(done.stdout)
    at = prefix + "keys/"
    assert said["lists"] == {
        f"{at}file": ["content of a file"],
        f"{at}list": ["one", "", "three", "four", "five"],
        f"{at}moved": ["new", "er"],
    }
    missing = ["KeyError", f"{at}none"]
    existing = ["FileExistsError", "17"]
    assert said["refusals"] == {
        f"put {tmp_path / 'local'}": existing,
        f"put_binary {at}list": existing,
        f"get {at}none": missing,
        f"delete {at}none": missing,
        f"update {at}none": missing,
        f"append {at}none": missing,
        f"update_key {at}none": missing,
        f"update_key {at}moved": existing,
    }
    assert (workdir / "keys" / "list").read_bytes() == b"onethreefourfive"
    assert (workdir / "keys" / "moved").read_bytes() == b"newer"


def test_lists_files_and_metadata(ciaos: Ciaos, workdir: Path, prefix: str, tmp_path: Path) -> None:
    many = [bytes([number % 256]) * (number % 7) for number in range(limits.PARTS_MAX)]
    ciaos.put_binary(f"{prefix}many", many, metadata={"epoch": "7", "ä": "日本\n"})
    assert ciaos.get(f"{prefix}many") == many
    info = ciaos.stat(f"{prefix}many")
    assert info.parts == tuple(map(len, many))
    assert info.size == sum(info.parts) == (workdir / "many").stat().st_size
    assert info.mtime_ns == (workdir / "many").stat().st_mtime_ns
    assert info.metadata == {"epoch": "7", "ä": "日本\n"}
    assert os.getxattr(workdir / "many", "user.epoch") == b"7"
    mixed = [b"x" * (2 * MIB + 5), b"", b"y" * MIB, b"z"]
    ciaos.update(f"{prefix}many", mixed)
    assert ciaos.get(f"{prefix}many") == mixed
    assert ciaos.stat(f"{prefix}many").metadata == {}
    with (workdir / "many").open("ab") as file:
        file.write(b"by hand")
    assert ciaos.get(f"{prefix}many") == [*mixed, b"by hand"]
    (workdir / "many").write_bytes(b"anew")
    assert ciaos.get(f"{prefix}many") == [b"anew"]
    with pytest.raises(ValueError, match="parts"):
        ciaos.append(f"{prefix}many", [b""] * limits.PARTS_MAX)
    (tmp_path / "f").write_bytes(LARGE)
    seen: list[tuple[int, int]] = []
    assert ciaos.put(tmp_path / "f", f"{prefix}f", progress=lambda *pair: seen.append(pair)) == f"{prefix}f"
    assert (workdir / "f").read_bytes() == LARGE
    steps = [*range(MIB, len(LARGE), MIB), len(LARGE)]
    assert seen == [(step, len(LARGE)) for step in steps]
    seen.clear()
    assert ciaos.get(f"{prefix}f", progress=lambda *pair: seen.append(pair)) == [LARGE]
    assert seen == [(step, len(LARGE)) for step in steps]


def test_what_is_refused(ciaos: Ciaos, workdir: Path, prefix: str, tmp_path: Path) -> None:
    (workdir / "folder").mkdir()
    (workdir / "file").write_bytes(b"x")
    os.mkfifo(workdir / "fifo")
    with pytest.raises(IsADirectoryError):
        ciaos.get(f"{prefix}folder")
    with pytest.raises(NotADirectoryError):
        ciaos.put_binary(f"{prefix}file/below", [b"x"])
    with pytest.raises(OSError, match="regular"):
        ciaos.get(f"{prefix}fifo")
    with pytest.raises(FileNotFoundError):
        ciaos.put(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        ciaos.put(tmp_path)
    with pytest.raises(ValueError, match="empty"):
        ciaos.put("")
    with pytest.raises(ValueError, match="empty"):
        ciaos.put_binary(f"{prefix}x", [])
    with pytest.raises(ValueError, match="'rb'"):
        ciaos.open(f"{prefix}x", "r+b")  # type: ignore[call-overload]
    assert not ciaos.exists(f"{prefix}folder")
    assert not ciaos.exists(f"{prefix}file/below")
    assert ciaos.exists(f"{prefix}file")
    names = ["folder", "file", "fifo", "none"]
    found = ciaos.stat_many([prefix + name for name in names])
    assert [info and info.size for info in found] == [None, 1, None, None]
    with pytest.raises(FileExistsError) as existing:
        ciaos.put_binary(f"{prefix}file", [b"y"])
    assert existing.value.filename == f"{prefix}file"
    ciaos.put_binary(f"{prefix}file", [b"y"], replace=True, sync=True)
    assert (workdir / "file").read_bytes() == b"y"


def test_keys_of_any_bytes_and_any_number(ciaos: Ciaos, workdir: Path, prefix: str) -> None:
    names = [b"\xff", b"a%?#\\", b" ", b"new\nline", "ä".encode(), b"..."]
    for name in names:
        ciaos.put_binary(prefix.encode() + name, [name])
        assert (Path(os.fsdecode(bytes(workdir) + b"/" + name))).read_bytes() == name
    assert list(ciaos.keys(prefix)) == [prefix + os.fsdecode(name) for name in sorted(names)]
    for number in range(limits.CLIENT_KEYS_PAGE + 50):
        (workdir / f"k{number:05}").touch()
    (workdir / "sub" / "deep").mkdir(parents=True)
    (workdir / "sub" / "deep" / "x").touch()
    numbered = [f"{prefix}k{number:05}" for number in range(limits.CLIENT_KEYS_PAGE + 50)]
    assert list(ciaos.keys(f"{prefix}k")) == numbered
    assert list(ciaos.keys(f"{prefix}s")) == [f"{prefix}sub/deep/x"]
    assert list(ciaos.keys(f"{prefix}s", flat=True)) == [f"{prefix}sub/"]
    assert list(ciaos.keys(f"{prefix}none/")) == []
    abandoned = ciaos.keys(f"{prefix}k")
    assert next(abandoned) == numbered[0]
    abandoned.close()


def test_streams(ciaos: Ciaos, workdir: Path, prefix: str) -> None:
    key = f"{prefix}stream"
    with ciaos.open(key, "xb", metadata={"a": "b"}) as out:
        for start in range(0, len(LARGE), 70_000):
            out.write(LARGE[start : start + 70_000])
        assert out.tell() == len(LARGE)
        assert not ciaos.exists(key)
    with ciaos.open(key) as source:
        assert source.info.parts == (len(LARGE),)
        assert source.info.metadata == {"a": "b"}
        assert source.read(10) == LARGE[:10]
        source.seek(-3, io.SEEK_END)
        assert source.read() == b"end"
        for place in (2 * MIB + 1, 5, MIB):
            source.seek(place)
            assert source.read(100) == LARGE[place : place + 100]
        source.seek(0)
        assert source.read() == LARGE
        ciaos.update(key, [b"other"])
        source.seek(0)
        assert source.read() == LARGE
    with ciaos.open(key, "ab") as out:
        out.write(b" and")
        out.write(b" more")
    assert ciaos.get(key) == [b"other", b" and more"]
    with pytest.raises(RuntimeError), ciaos.open(key, "wb") as out:
        out.write(LARGE)
        raise RuntimeError
    out = ciaos.open(f"{prefix}forgotten", "wb")
    out.write(LARGE)
    del out
    assert [path.name for path in workdir.iterdir()] == ["stream"]
    with pytest.raises(KeyError):
        ciaos.open(f"{prefix}none")
    with pytest.raises(KeyError):
        ciaos.open(f"{prefix}none", "ab")
    with pytest.raises(FileExistsError):
        ciaos.open(key, "xb")
    with ciaos.open(key, "wb"):
        pass
    assert ciaos.get(key) == [b""]
    with pytest.raises(ValueError, match="closed"):
        out = ciaos.open(key, "wb")
        out.close()
        out.write(b"x")


def test_many_threads_on_one_session(ciaos: Ciaos, workdir: Path, prefix: str) -> None:
    """More of them than there are connections; all append to one object, too."""
    ciaos.put_binary(f"{prefix}all", [b"begin"])
    threads, each = 2 * limits.CLIENT_CALLS_MAX, 10
    failures: list[BaseException] = []

    def use(number: int) -> None:
        try:
            for turn in range(each):
                key = f"{prefix}{number}/{turn}"
                ciaos.put_binary(key, [key.encode(), b"!"])
                assert ciaos.get(key) == [key.encode(), b"!"]
                ciaos.append(f"{prefix}all", [key.encode()])
                if turn % 2:
                    ciaos.delete(key)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    users = [threading.Thread(target=use, args=(number,)) for number in range(threads)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert not failures
    written = {f"{prefix}{number}/{turn}".encode() for number in range(threads) for turn in range(each)}
    first, *rest = ciaos.get(f"{prefix}all")
    assert first == b"begin"
    assert len(rest) == len(written)
    assert set(rest) == written
    assert len([path for path in workdir.rglob("*") if path.is_file()]) == 1 + threads * each // 2


def test_a_forked_child_has_connections_of_its_own(ciaos: Ciaos, workdir: Path, prefix: str) -> None:
    ciaos.put_binary(f"{prefix}parent", [b"p"])
    with ciaos.open(f"{prefix}draft", "wb") as out:
        out.write(b"of the parent")
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                ciaos.put_binary(f"{prefix}child", [b"c"])
                try:
                    out.write(b"of the child")
                except OSError:
                    del out
                    status = 0 if ciaos.get(f"{prefix}parent") == [b"p"] else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        ciaos.append(f"{prefix}child", [b"p"])
    assert ciaos.get(f"{prefix}draft") == [b"of the parent"]
    assert ciaos.get(f"{prefix}child") == [b"c", b"p"]
