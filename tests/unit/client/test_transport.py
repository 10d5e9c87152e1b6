"""Finding the daemon's socket and speaking with it, or saying why not."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ciaosfs.base import limits
from ciaosfs.base.errors import DaemonError, FsError, UsageError
from ciaosfs.client import transport
from ciaosfs.client.mounts import Mount
from ciaosfs.client.transport import Connection


@contextmanager
def answering(path: Path, *parts: bytes) -> Iterator[list[bytes]]:
    """A daemon that reads one request and sends `parts`, then hangs up. Yields what it has received."""
    received: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                data = connection.recv(1000)
                for part in parts:
                    connection.sendall(part)
                connection.shutdown(socket.SHUT_WR)
                while more := connection.recv(1000):
                    data += more
                received.append(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield received
        thread.join()


def test_a_reply_in_pieces_is_put_together(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with answering(path, b'{"v":1,"ok":', b'true,"result":{"a":1}}\n'), Connection(path) as connection:
        assert connection.call("status") == {"a": 1}


def test_a_daemon_that_hangs_up_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "s"
    went_away = pytest.raises(DaemonError, match="went away without an answer")
    with answering(path, b'{"v":1'), Connection(path) as connection, went_away:
        connection.call("status")


def test_no_daemon_is_an_error_that_names_the_socket(tmp_path: Path) -> None:
    with pytest.raises(DaemonError, match=str(tmp_path / "s")):
        Connection(tmp_path / "s").__enter__()


def test_a_silent_daemon_is_not_waited_for_without_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with Connection(path) as connection, pytest.raises(DaemonError, match=r"within 0\.01 s"):
            connection.call("status", timeout_s=0.01)


def test_users_have_a_directory_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert transport.runtime_directory() == tmp_path / "ciaosfs"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert transport.runtime_directory().name == "ciaosfs-1234"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert transport.runtime_directory() == Path("/run/ciaosfs")


def test_a_directory_that_others_can_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "runtime_directory", lambda: tmp_path / "run")
    transport.make_runtime_directory()
    transport.make_runtime_directory()
    (tmp_path / "run").chmod(0o777)
    with pytest.raises(DaemonError, match="nobody else can write"):
        transport.make_runtime_directory()


def test_a_link_in_its_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(transport, "runtime_directory", lambda: tmp_path / "run")
    with pytest.raises(DaemonError, match="not a directory of your own"):
        transport.make_runtime_directory()


def test_a_path_too_long_for_a_socket_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "runtime_directory", lambda: Path("/" + "x" * 100))
    with pytest.raises(DaemonError, match="too long"):
        transport.socket_path(bytes(16))


def test_the_socket_is_found_by_the_device_of_a_mount(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    mount = Mount(Path("/mnt/ciaos"), "0:45", "fuse.ciaosfs", "/store")
    assert transport.mount_socket_path(mount) == Path("/run/ciaosfs/mount-0:45.sock")
    assert transport.mount_socket_path(replace(mount, user_id=1234)).parent == tmp_path / "ciaosfs"
    assert transport.mount_socket_path(replace(mount, user_id=99)).parent == Path("/run/user/99/ciaosfs")


def test_bodies_go_and_come_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "s"
    reply = b'{"v":1,"ok":true,"result":{"a":1},"body":5}\nhe', b"llo"
    with answering(path, *reply) as received, Connection(path) as connection:
        assert connection.call("status", body=b"bytes", key="k") == {"a": 1}
        assert connection.reply_body == b"hello"
    assert received == [b'{"v":1,"op":"status","key":"k","body":5}\nbytes']


def test_what_a_daemon_said_before_it_hung_up_is_heard(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with Connection(path) as connection:
            refused, _ = listener.accept()
            with refused:
                refused.sendall(b'{"v":1,"ok":false,"errno":11,"code":"FsError","message":"too many"}\n')
            with pytest.raises(FsError, match="too many"):
                connection.call("status", body=bytes(500_000))


def test_a_request_that_is_too_long_is_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with answering(path, b'{"v":1,"ok":true,"result":{}}\n'), Connection(path) as connection:
        with pytest.raises(UsageError, match="status has"):
            connection.call("status", text="x" * limits.CONTROL_MESSAGE_BYTES_MAX)
        with pytest.raises(UsageError, match="status has"):
            connection.call("status", body=bytes(limits.CONTROL_BODY_BYTES_MAX + 1))
        assert connection.call("status") == {}


def test_a_daemon_that_has_many_to_accept_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        with Connection(path):
            waiting = threading.Thread(target=lambda: Connection(path).__enter__().__exit__(None, None, None))
            waiting.start()
            for _ in range(2):
                listener.accept()[0].close()
            waiting.join()
