"""Objects over the control socket of a daemon: what clients do to it by going, staying, and asking for a lot."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ciaosfs.base.errors import CiaosError, FsError, UsageError
from ciaosfs.client.locate import connect
from ciaosfs.client.transport import Connection
from tests.support.builders import Store
from tests.support.mount import ROOT, MountedStore, environment, wait_until

MIB = 1 << 20
NAMES = 4_000

PUT_AND_HANG = """
import os, sys, time
from pathlib import Path
from ciaosfs.client.locate import connect
with connect(Path(sys.argv[1])) as connection:
    handle = connection.call("object-create", key="killed/key")["handle"]
    for number in range(20):
        connection.call("object-write", handle=handle, body=os.urandom(1 << 20))
    print("written", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def connection(shared_mount: MountedStore) -> Iterator[Connection]:
    with connect(shared_mount.store) as connected:
        yield connected


def refused(connection: Connection, operation: str, **arguments: Any) -> int:
    with pytest.raises(CiaosError) as caught:
        connection.call(operation, **arguments)
    return caught.value.errno


def test_a_killed_client_leaves_nothing(shared_mount: MountedStore, connection: Connection) -> None:
    before = connection.call("status")
    client = subprocess.Popen(
        [sys.executable, "-c", PUT_AND_HANG, shared_mount.store],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    )
    assert client.stdout is not None and client.stdout.readline() == b"written\n"
    assert connection.call("status")["inodes"] == before["inodes"] + 1
    connection.call("sync")
    store = Store(shared_mount.store)
    most = store.used_bytes()
    client.send_signal(signal.SIGKILL)
    client.wait()
    client.stdout.close()
    wait_until(lambda: connection.call("status")["inodes"] == before["inodes"], "the inode is still there")
    assert os.listdir(shared_mount.path) == []

    def is_given_back() -> bool:
        connection.call("sync")
        return store.used_bytes() <= most - 30 * MIB  # 20 of them in 4+2

    wait_until(is_given_back, "the space is not given back")
    assert connection.call("status")["dirty_bytes"] == 0


def test_every_operation_from_one_end_to_the_other(
    shared_mount: MountedStore, connection: Connection, workdir: Path
) -> None:
    key = f"{workdir.name}/a/key"
    call = connection.call
    result = call(
        "object-put", key=key, mode="create", body=b"onetwo", parts=[3, 3], metadata={"who": "mé\udcff"}
    )
    assert (result["size"], result["replaced"]) == (6, False)
    assert os.getxattr(workdir / "a/key", "user.who") == "mé\udcff".encode(errors="surrogateescape")
    got = call("object-get", key=key)
    assert (connection.reply_body, got["parts"], got["handle"]) == (b"onetwo", [3, 3], None)
    assert got["metadata"] == {"who": "mé\udcff"}
    got = call("object-get", key=key, length=2)
    assert connection.reply_body == b"on"
    handle = call("object-create", key=key, mode="replace", permissions=0o600)["handle"]
    call("object-write", handle=handle, body=b"x" * MIB)
    call("object-write", handle=handle, body=b"y" * 10)
    assert call("object-write", handle=handle, body=b"z", part=True)["size"] == MIB + 11
    assert call("object-commit", handle=handle, sync=True)["replaced"] is True
    call("object-read", handle=got["handle"], offset=1, length=MIB)
    assert connection.reply_body == b"netwo"  # what was opened stays
    call("close", handle=got["handle"])
    assert refused(connection, "object-read", handle=got["handle"], offset=0, length=1) == errno.EBADF
    assert refused(connection, "object-commit", handle=handle) == errno.EBADF
    found = call("object-open", key=key)
    assert (found["parts"], found["metadata"]) == ([MIB + 10, 1], {})
    call("object-read", handle=found["handle"], offset=MIB, length=MIB)
    assert connection.reply_body == b"y" * 10 + b"z"
    assert workdir.joinpath("a/key").stat().st_mode & 0o777 == 0o600
    assert call("object-append", key=key, body=b"w")["offset"] == MIB + 11
    assert refused(connection, "object-append", key=key + "2", body=b"w") == errno.ENOENT
    assert call("object-append", key=key + "2", body=b"w", create=True) == {"offset": 0, "size": 1}
    assert refused(connection, "object-rename", old=key, new=key + "2") == errno.EEXIST
    call("object-rename", old=key, new=f"{workdir.name}/b/c/d")
    assert (workdir / "b/c/d").stat().st_size == MIB + 12
    listed = call("object-list", prefix=workdir.name + "/")
    assert listed["keys"] == [key + "2", f"{workdir.name}/b/c/d"]
    call("object-delete", key=key + "2")
    assert refused(connection, "object-delete", key=key + "2") == errno.ENOENT
    assert refused(connection, "object-delete", key=f"{workdir.name}/b") == errno.EISDIR


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("object-put", {"key": "k", "mode": "sometimes"}),
        ("object-put", {"key": "k", "permissions": 0o1000}),
        ("object-put", {"key": "k", "parts": [5]}),
        ("object-put", {"key": "k", "parts": [True]}),
        ("object-put", {"key": "k", "parts": []}),
        ("object-put", {"key": "k", "metadata": {"ciaos.parts": "x"}}),
        ("object-put", {"key": "k", "metadata": {"n" * 251: "x"}}),
        ("object-put", {"key": "k", "metadata": {"n": 5}}),
        ("object-put", {"key": "k", "sync": "yes"}),
        ("object-put", {"key": ["k"]}),
        ("object-stat", {}),
        ("object-read", {"handle": "x", "offset": 0, "length": 1}),
        ("object-list", {"limit": 10_001}),
        ("object-list", {"prefix": "../"}),
        ("object-list", {"after": 5}),
        ("object-list", {"cursor": 99}),
        ("close", {"handle": 99}),
        ("close", {}),
    ],
)
def test_nonsense_is_refused_with_a_sentence(
    shared_mount: MountedStore, connection: Connection, operation: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises((UsageError, FsError)) as caught:
        connection.call(operation, **arguments)
    assert caught.value.message.endswith(".") and " " in caught.value.message
    assert not (shared_mount.path / "k").exists()


def test_many_thousand_names_while_some_come_and_go(
    shared_mount: MountedStore, connection: Connection, workdir: Path
) -> None:
    steady = [f"{workdir.name}/s{number * 7919 % NAMES:05}" for number in range(NAMES)]
    for key in steady:
        os.close(os.open(shared_mount.path / key, os.O_CREAT | os.O_WRONLY))
    stopping = threading.Event()

    def come_and_go() -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            (workdir / f"x{number}").touch()
            if number > 20:
                (workdir / f"x{number - 20}").unlink()

    other = threading.Thread(target=come_and_go)
    other.start()
    found: list[str] = []
    page = connection.call("object-list", prefix=workdir.name + "/", limit=397)
    while True:
        assert len(page["keys"]) <= 397
        found += page["keys"]
        if page["cursor"] is None:
            break
        page = connection.call("object-list", cursor=page["cursor"], limit=397)
    stopping.set()
    other.join()
    assert found == sorted(found)
    assert [key for key in found if "/s" in key] == sorted(steady)
    half = sorted(steady)[NAMES // 2]
    assert (
        connection.call("object-list", prefix=f"{workdir.name}/s", after=half, limit=3)["keys"]
        == (sorted(steady)[NAMES // 2 + 1 : NAMES // 2 + 4])
    )


def test_idle_clients_do_not_keep_the_store_mounted(mounted: MountedStore) -> None:
    with connect(mounted.store) as connection, connect(mounted.store) as other:
        connection.call("object-put", key="key", body=b"x" * 100)
        (mounted.path / "folder").mkdir()
        connection.call("object-open", key="key")
        connection.call("object-list", limit=1)
        handle = connection.call("object-create", key="folder/half")["handle"]
        connection.call("object-write", handle=handle, body=b"half")
        other.call("object-open", key="key")
        mounted.umount()
        mounted.mount()
        assert sorted(os.listdir(mounted.path)) == ["folder", "key"]
        assert os.listdir(mounted.path / "folder") == []
        with connect(mounted.store) as third:
            third.call("object-open", key="key")
            os.kill(int(mounted.status()["pid"]), signal.SIGTERM)
            wait_until(lambda: not mounted.path.is_mount(), "SIGTERM does not unmount")
    mounted.mount()
