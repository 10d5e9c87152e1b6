"""The control socket of a running daemon: found by everybody, flooded by hundreds, and the mount does not notice."""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

from ciaosfs.base import limits
from ciaosfs.base.config import load_config
from ciaosfs.base.errors import AccessError
from ciaosfs.cli.main import run
from ciaosfs.client import locate, mounts, transport
from ciaosfs.client.locate import connect
from ciaosfs.client.transport import Connection
from tests.daemon.conftest import MemoryMount, Starter
from tests.support.conversing import SECRET
from tests.support.mount import ROOT

NOBODY = 65534
FLOODING = 300
ROUNDS = 5
ROW = re.compile(r"\| `([a-z-]+)` \| ([a-z ]+) \|")


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """The kernel takes this process for one of `uid`, until the end."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.fixture
def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")


def test_the_protocol_names_every_operation_and_its_need(shared: MemoryMount) -> None:
    with connect(shared.store) as connection:
        told = connection.call("hello")
    text = (ROOT / "PROTOCOL.md").read_text().partition("\n## Operations\n")[2]
    assert dict(ROW.findall(text)) == told["operations"]
    assert told["mountpoint"] == str(shared.path)


@pytest.mark.root
def test_who_may_not_read_the_store_finds_its_socket(shared: MemoryMount, needs_root: None) -> None:
    shared.store.chmod(0o700)
    with as_user(NOBODY):
        target = locate.locate(shared.path / "some" / "file")
        assert target.store == shared.store
        with connect(target.store) as connection:
            assert connection.call("hello")["mountpoint"] == str(shared.path)
            for operation, scope in [("status", "admin"), ("sync", "admin"), ("stop", "root")]:
                with pytest.raises(AccessError, match=scope):
                    connection.call(operation)
            with pytest.raises(AccessError, match="not valid"):
                connection.auth(SECRET)
    assert SECRET not in shared.log()


@pytest.mark.root
def test_commands_tell_another_user_what_is_missing(
    shared: MemoryMount, needs_root: None, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("status", "drive", "umount"):  # another user may not be able to read the library
        importlib.import_module(f"ciaosfs.cli.cmd_{name}")
    for arguments, status, said in [
        (["status"], 8, "This (status) needs a token with the scope admin"),
        (["drive", "remove", "--yes", "0"], 8, "Only root and the user who mounted the store"),
        (["umount"], 5, "was mounted by another user"),
    ]:
        with as_user(NOBODY):
            assert run([*arguments, str(shared.path)]) == status
        assert said in capfd.readouterr().err
    assert shared.is_mounted()


@pytest.mark.root
def test_the_link_goes_with_the_mount_and_no_other(make_mount: Starter, needs_root: None) -> None:
    mount = make_mount()
    found = mounts.mount_at(mount.path)
    assert found is not None
    name = transport.mount_socket_path(found)
    path = transport.socket_path(load_config(mount.store).store_id)
    assert name.readlink() == Path(path.name)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o666, 0o755)
    mount.process.kill()
    mount.process.wait()
    mounts.detach(mount.path)
    stale = name.with_name("mount-0:999999.sock")
    name.rename(stale)
    again = make_mount(store=mount.store, path=mount.path)
    assert not os.path.lexists(stale)
    found = mounts.mount_at(mount.path)
    assert found is not None
    name = transport.mount_socket_path(found)
    name.unlink()
    name.symlink_to("of-another-store.sock")  # which has got the device meanwhile
    try:
        assert again.unmount() == 0
        assert os.path.lexists(name)
        assert not path.exists()
    finally:
        name.unlink()


@pytest.mark.root
def test_one_user_cannot_keep_the_others_out(shared: MemoryMount, needs_root: None) -> None:
    path = str(transport.socket_path(load_config(shared.store).store_id))
    clients = [socket.socket(socket.AF_UNIX) for _ in range(limits.CONTROL_CLIENTS_USER_MAX + 3)]
    try:
        with as_user(NOBODY):
            for client in clients:
                client.connect(path)
        assert b"too many clients" in clients[-1].recv(4096)
        with as_user(NOBODY - 1), Connection(Path(path)) as other:
            other.call("hello")
        with connect(shared.store) as connection:
            connection.call("status")
    finally:
        for client in clients:
            client.close()


# The flood. Each client does one kind of harm, again and again, for as long as the mount is used.


async def send_rubbish(path: str, luck: random.Random) -> None:
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(luck.randbytes(luck.randrange(2000)) + b"\n")
        while await stream.receive_some():
            pass


async def stay_in_the_middle_of_a_line(path: str, luck: random.Random) -> None:
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(b'{"v":1,"op":"' + b"x" * luck.randrange(limits.CONTROL_MESSAGE_BYTES_MAX - 20))
        await trio.sleep(luck.random())


async def stay_in_the_middle_of_a_body(path: str, luck: random.Random) -> None:
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(b'{"v":1,"op":"status","body":1048576}\n' + bytes(luck.randrange(1 << 17)))
        await trio.sleep(luck.random())


async def come_and_go(path: str, luck: random.Random) -> None:
    for _ in range(5):
        async with await trio.open_unix_socket(path):
            pass


async def ask_much_and_read_nothing(path: str, luck: random.Random) -> None:
    async with await trio.open_unix_socket(path) as stream:
        with trio.move_on_after(0.5):
            await stream.send_all(b'{"v":1,"op":"hello"}\n' * 2000)


async def stop_sending_and_read(path: str, luck: random.Random) -> None:
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(b'{"v":1,"op":"hello"}\n' * 3)
        await stream.send_eof()
        received = b""
        while data := await stream.receive_some():
            received += data
        lines = [json.loads(line) for line in received.splitlines()]
        assert [line["ok"] for line in lines] in ([True] * 3, [False])  # or too many are there


HARM = (
    send_rubbish,
    stay_in_the_middle_of_a_line,
    stay_in_the_middle_of_a_body,
    come_and_go,
    ask_much_and_read_nothing,
    stop_sending_and_read,
)


async def harm_until(done: trio.Event, path: str, number: int) -> None:
    luck = random.Random(number)
    while not done.is_set():
        with suppress(trio.BrokenResourceError, OSError):
            await HARM[number % len(HARM)](path, luck)
        await trio.sleep(0.05)


def use(mount: MemoryMount) -> None:
    for number in range(ROUNDS):
        content = os.urandom(100_000)
        file = mount.path / f"flooded{number}"
        file.write_bytes(content)
        assert file.read_bytes() == content
        with connect(mount.store) as connection:
            connection.call("sync")
        file.unlink()


def peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]  # it is there


def test_a_flood_of_clients_does_not_disturb_the_mount(shared: MemoryMount) -> None:
    path = str(transport.socket_path(load_config(shared.store).store_id))
    before_kib = peak_kib(shared.process.pid)

    async def flood() -> None:
        done = trio.Event()
        async with trio.open_nursery() as nursery:
            for number in range(FLOODING):
                nursery.start_soon(harm_until, done, path, number)
            await trio.to_thread.run_sync(use, shared)
            done.set()
            nursery.cancel_scope.cancel()

    trio.run(flood)
    with connect(shared.store) as connection:
        connection.call("status")
    grown_bytes = 1024 * (peak_kib(shared.process.pid) - before_kib)
    assert grown_bytes < FLOODING * 4 * limits.CONTROL_MESSAGE_BYTES_MAX + limits.CONTROL_BODIES_BYTES_MAX
    assert not re.findall(r" (?:WARNING|ERROR|CRITICAL) .*|Traceback.*", shared.log())
