"""Start, stop and refusal of the daemon."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from ciaosfs.base import limits
from ciaosfs.base.config import load_config
from ciaosfs.base.errors import DaemonError, MountError, UsageError
from ciaosfs.base.log import LOG_NAME
from ciaosfs.client import mounts, storelock
from ciaosfs.client.locate import connect
from ciaosfs.client.storelock import Ending
from ciaosfs.client.transport import socket_path
from tests.daemon.conftest import MemoryMount, Starter
from tests.support.mount import detach, wait_until


def test_umount_ends_the_daemon_in_good_order(make_mount: Starter) -> None:
    mount = make_mount()
    holder, _ = storelock.read_lock(mount.store)
    assert holder is not None
    assert (holder.pid, holder.mountpoint) == (mount.process.pid, str(mount.path))
    assert mount.unmount() == 0
    assert storelock.read_lock(mount.store) == (None, Ending(0))
    assert not Path(holder.socket).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_unmounts(make_mount: Starter, number: signal.Signals) -> None:
    mount = make_mount()
    mount.process.send_signal(number)
    assert mount.process.wait(10) == 0
    assert not mount.is_mounted()
    assert storelock.read_lock(mount.store) == (None, Ending(0))


def test_a_signal_ends_a_mount_in_use_too(make_mount: Starter) -> None:
    mount = make_mount()
    descriptor = os.open(mount.path / "open", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"written, not synced")
    mount.process.terminate()
    assert mount.process.wait(10) == 0
    with pytest.raises(OSError) as caught:
        os.fsync(descriptor)
    assert caught.value.errno in (errno.ENOTCONN, errno.EIO, errno.ECONNABORTED)
    with suppress(OSError):
        os.close(descriptor)
    assert not mount.is_mounted()
    assert "stopping although in use" in mount.log()


def test_umount_of_a_mount_in_use_is_refused_and_harmless(make_mount: Starter) -> None:
    mount = make_mount()
    with (mount.path / "open").open("wb"):
        with pytest.raises(MountError, match="in use") as caught:
            mounts.unmount(mount.path)
        assert caught.value.errno == errno.EBUSY
    assert mount.path.stat().st_ino == 1


def test_a_last_flush_that_fails_is_reported(make_mount: Starter) -> None:
    mount = make_mount(faults="bad-ending")
    assert mount.unmount() == 1
    ending = Ending(1, "The drives cannot take the last commit.")
    assert storelock.read_lock(mount.store) == (None, ending)


def test_a_second_daemon_is_told_who_has_the_store(make_mount: Starter, tmp_path: Path) -> None:
    first = make_mount()
    other = tmp_path / "other"
    other.mkdir()
    second = make_mount(store=first.store, path=other)
    assert second.process.wait(10) == 4
    assert f"already mounted at {first.path} by process {first.process.pid}" in second.report["message"]
    assert first.path.stat().st_ino == 1


def test_a_log_that_cannot_be_written_is_named(make_mount: Starter) -> None:
    first = make_mount()
    assert first.unmount() == 0
    log = first.store / LOG_NAME
    log.rename(log.with_suffix(".kept"))
    log.mkdir()
    second = make_mount(store=first.store, path=first.path)
    assert second.process.wait(10) == 3
    assert f"cannot be written to {log}: Is a directory" in second.report["message"]
    assert storelock.read_lock(first.store) == (None, Ending(0))
    log.rmdir()


def test_what_is_in_use_for_a_moment_is_unmounted_after_it(make_mount: Starter) -> None:
    mount = make_mount()
    descriptor = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY)
    user = threading.Timer(mounts.BUSY_S / 4, os.close, (descriptor,))
    user.start()
    mounts.unmount(mount.path)
    user.join()
    assert mount.process.wait(10) == 0 and not mount.is_mounted()


def test_a_mount_right_after_umount_waits_for_the_former_daemon(make_mount: Starter) -> None:
    first = make_mount()
    mounts.unmount(first.path)
    second = make_mount(store=first.store, path=first.path)
    assert second.report == {"ready": True, "reports": ["Nothing was lost."]}
    assert second.unmount() == 0


def test_a_killed_daemon_leaves_no_ending_and_a_lock_that_is_free(make_mount: Starter) -> None:
    mount = make_mount()
    mount.process.kill()
    mount.process.wait()
    assert storelock.read_lock(mount.store) == (None, None)
    second = make_mount(store=mount.store, path=mount.path)
    assert second.process.wait(10) == 5
    assert "already a mount point" in second.report["message"]
    detach(mount.path)
    assert make_mount(store=mount.store, path=mount.path).report == {
        "ready": True,
        "reports": ["Nothing was lost."],
    }


def test_refusals_before_anything_is_touched(make_mount: Starter, tmp_path: Path) -> None:
    store = make_mount().store
    file = tmp_path / "file"
    file.touch()
    full = tmp_path / "full"
    (full / "something").mkdir(parents=True)
    before = sorted(os.listdir(store))
    for place, complaint in [
        (tmp_path / "none", "does not exist"),
        (file, "not a directory"),
        (full, "not empty"),
    ]:
        refused = make_mount(store=store, path=place)
        assert refused.process.wait(10) == 5
        assert complaint in refused.report["message"]
    refused = make_mount(store=tmp_path / "no store", path=full)
    assert refused.process.wait(10) == 3
    assert sorted(os.listdir(store)) == before


def test_sigusr1_shows_threads_and_tasks(make_mount: Starter) -> None:
    mount = make_mount()
    mount.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: "tasks:" in mount.log() and "Thread 0x" in mount.log(), "no stacks in the log")
    assert "ControlServer.serve" in mount.log()
    assert mount.path.stat().st_ino == 1


def test_the_control_socket_answers(shared: MemoryMount) -> None:
    with connect(shared.store) as connection:
        status = connection.call("status")
        assert status["pid"] == shared.process.pid
        assert status["store"] == str(shared.store)
        assert status["commit"]["sequence"] == 7
        before = shared.counts()["syncs"]
        assert connection.call("sync") == {"commit": 7}
        assert shared.counts()["syncs"] == before + 1


def test_sync_brings_over_what_only_the_kernel_has(shared: MemoryMount) -> None:
    with (shared.path / "cached").open("wb", buffering=0) as file:
        file.write(b"x" * 1000)
        with connect(shared.store) as connection:
            connection.call("sync")
    assert (shared.path / "cached").read_bytes() == b"x" * 1000


def test_bad_requests_are_answered(shared: MemoryMount) -> None:
    with connect(shared.store) as connection, pytest.raises(UsageError, match="no operation 'dance'"):
        connection.call("dance")
    for rubbish, complaint in [
        (b"not json\n", b'"ok":false'),
        (b'{"v":99,"op":"status"}\n', b"version 1"),
        (b"x" * (limits.CONTROL_MESSAGE_BYTES_MAX + 10), b"at most"),
    ]:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(socket_path(load_config(shared.store).store_id)))
            raw.sendall(rubbish)
            assert complaint in raw.recv(4096)
            with suppress(ConnectionResetError):  # it does not read the rest
                assert raw.recv(4096) == b""


def test_many_clients_are_served_and_too_many_are_told(shared: MemoryMount) -> None:
    path = str(socket_path(load_config(shared.store).store_id))
    idle = [socket.socket(socket.AF_UNIX) for _ in range(limits.CONTROL_CLIENTS_MAX + 5)]
    try:
        for client in idle:
            client.connect(path)
        assert b"too many clients" in idle[-1].recv(4096)
    finally:
        for client in idle:
            client.close()
    failures: list[Exception] = []

    def ask() -> None:
        try:
            with connect(shared.store) as connection:
                for _ in range(5):
                    connection.call("status")
        except DaemonError as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_stop_over_the_socket(make_mount: Starter) -> None:
    mount = make_mount()
    with connect(mount.store) as connection:
        assert connection.call("stop") == {"pid": mount.process.pid}
    assert mount.process.wait(10) == 0
    assert not mount.is_mounted()


@pytest.mark.root
def test_another_user_is_told_what_is_missing(shared: MemoryMount) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    path = socket_path(load_config(shared.store).store_id)
    code = (
        "import socket; s = socket.socket(socket.AF_UNIX); "
        f's.connect({str(path)!r}); s.sendall(b\'{{"v":1,"op":"status"}}\\n\'); print(s.recv(999))'
    )
    done = subprocess.run(["python3", "-c", code], user=65534, capture_output=True, text=True, check=False)
    assert "needs a token with the scope admin" in done.stdout
