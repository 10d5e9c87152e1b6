"""The FUSE edge on a real mount, with a file system in memory behind it."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ciaosfs.client import mounts
from tests.daemon.conftest import MemoryMount, Starter
from tests.support.memory_fs import SLOW_S, TOTAL_BYTES

MIB = 1 << 20


def test_files_are_made_written_read_and_removed(shared: MemoryMount) -> None:
    path = shared.path / "file"
    data = os.urandom(3 * MIB + 5)
    path.write_bytes(data)
    assert path.read_bytes() == data
    with path.open("ab") as file:
        file.write(b"tail")
        os.fsync(file.fileno())
    assert path.stat().st_size == len(data) + 4
    os.truncate(path, 10)
    assert path.read_bytes() == data[:10]
    with path.open("wb"):
        pass
    assert path.read_bytes() == b""
    path.rename(shared.path / "renamed")
    assert not path.exists()
    (shared.path / "renamed").unlink()


def test_names_of_every_kind(shared: MemoryMount) -> None:
    directory = shared.path / "kinds"
    directory.mkdir(mode=0o750)
    (directory / "link").symlink_to("target of the link")
    (directory / "file").touch()
    os.link(directory / "file", directory / "other name")
    os.mkfifo(directory / "fifo")
    assert os.readlink(directory / "link") == "target of the link"
    assert (directory / "file").stat().st_nlink == 2
    assert stat.S_ISFIFO((directory / "fifo").stat().st_mode)
    assert directory.stat().st_mode & 0o7777 == 0o750
    with pytest.raises(OSError, match="not empty"):
        directory.rmdir()
    with pytest.raises(FileExistsError):
        directory.mkdir()
    with pytest.raises(OSError) as caught:
        (directory / ("n" * 256)).touch()
    assert caught.value.errno == errno.ENAMETOOLONG


def test_attributes_are_changed_and_kept_to_the_nanosecond(shared: MemoryMount) -> None:
    path = shared.path / "attributes"
    path.touch()
    os.utime(path, ns=(1_700_000_000_123_456_789, 1_600_000_000_987_654_321))
    path.chmod(0o640)
    found = path.stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_700_000_000_123_456_789, 1_600_000_000_987_654_321)
    assert found.st_mode & 0o7777 == 0o640
    os.setxattr(path, "user.note", b"value")
    assert os.getxattr(path, "user.note") == b"value"
    assert "user.note" in os.listxattr(path)
    os.removexattr(path, "user.note")
    with pytest.raises(OSError) as caught:
        os.getxattr(path, "user.note")
    assert caught.value.errno == errno.ENODATA


def test_a_long_listing_has_every_name_once(shared: MemoryMount) -> None:
    directory = shared.path / "listing"
    directory.mkdir()
    names = {f"name-{number:04}" for number in range(1000)}
    for name in names:
        (directory / name).touch()
    listed = os.listdir(directory)
    assert len(listed) == 1000
    assert set(listed) == names
    with os.scandir(directory) as entries:
        assert all(entry.is_file() and entry.stat().st_size == 0 for entry in entries)


def test_the_space_and_the_longest_name_are_told(shared: MemoryMount) -> None:
    found = os.statvfs(shared.path)
    assert found.f_frsize == 4096
    assert found.f_blocks * found.f_frsize == TOTAL_BYTES
    assert found.f_bavail < found.f_bfree < found.f_blocks
    assert found.f_namemax == 255


def test_a_name_that_is_not_there_is_asked_for_once(shared: MemoryMount) -> None:
    with pytest.raises(FileNotFoundError):
        os.stat(shared.path / "never")
    before = shared.counts()["lookups"]
    for _ in range(10):
        with pytest.raises(FileNotFoundError):
            os.stat(shared.path / "never")
    assert shared.counts()["lookups"] == before
    (shared.path / "never").touch()
    assert (shared.path / "never").exists()


@pytest.mark.root
def test_large_reads_arrive_whole(shared: MemoryMount) -> None:
    if os.getuid() != 0:
        pytest.skip("only root may raise the read-ahead")
    path = shared.path / "large"
    path.write_bytes(bytes(16 * MIB))
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(MIB):
            pass
    assert shared.counts()["largest_read"] == MIB


def test_fsync_reaches_the_file_system(shared: MemoryMount) -> None:
    before = shared.counts()["syncs"]
    with (shared.path / "synced").open("wb") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(shared.path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)
    assert shared.counts()["syncs"] == before + 2


def read_special(path: Path) -> bytes:
    path.write_bytes(b"content")
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)  # the daemon is asked, whatever the kernel has
    try:
        return os.pread(descriptor, 512, 0)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("name", ["bug", "lost"])
def test_an_error_in_one_request_is_an_errno_for_that_request(shared: MemoryMount, name: str) -> None:
    with pytest.raises(OSError) as caught:
        read_special(shared.path / name)
    assert caught.value.errno == errno.EIO
    assert shared.path.stat().st_ino == 1
    expected = "ZeroDivisionError: a bug behind the edge" if name == "bug" else "has lost more shards"
    assert expected in shared.log()


def test_a_slow_handler_holds_up_nobody(shared: MemoryMount) -> None:
    path = shared.path / "slow"
    reader = threading.Thread(target=read_special, args=(path,))
    reader.start()
    slowest = 0.0
    while reader.is_alive():
        start = time.monotonic()
        with pytest.raises(FileNotFoundError):
            os.stat(shared.path / f"absent-{start}")
        slowest = max(slowest, time.monotonic() - start)
        time.sleep(0.005)
    reader.join()
    assert slowest < SLOW_S / 2


def test_many_slow_handlers_hold_up_nobody(shared: MemoryMount) -> None:
    path = shared.path / "slow"
    path.write_bytes(b"content")
    code = f"import os; os.pread(os.open({str(path)!r}, os.O_RDONLY | os.O_DIRECT), 512, 0)"
    readers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(8)]
    while any(reader.poll() is None for reader in readers):
        start = time.monotonic()
        with pytest.raises(FileNotFoundError):
            os.stat(shared.path / f"absent-{start}")
        assert time.monotonic() - start < SLOW_S / 2
        time.sleep(0.005)


def test_killed_clients_leave_the_mount_alone(shared: MemoryMount) -> None:
    code = (
        f"import os\nnumber = 0\nwhile True:\n  number += 1\n"
        f"  try: os.stat({str(shared.path)!r} + f'/{{os.getpid()}}-{{number}}')\n  except OSError: pass"
    )
    for _ in range(10):
        clients = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
        time.sleep(0.15)
        for client in clients:
            client.send_signal(signal.SIGKILL)
            client.wait()
    assert shared.path.stat().st_ino == 1


def test_a_request_that_vanished_is_survived(make_mount: Starter) -> None:
    mount = make_mount(faults="lying-poll")
    for number in range(300):
        (mount.path / f"file-{number}").write_bytes(b"data")
    assert len(os.listdir(mount.path)) == 300
    assert mount.unmount() == 0
    line = next(line for line in mount.log().splitlines() if "vanished=" in line)
    assert "vanished=0" not in line
    assert "escaped=0" in line


def test_the_mount_says_what_it_is(shared: MemoryMount) -> None:
    mount = mounts.mount_at(shared.path)
    assert mount is not None
    assert mount.fstype == "fuse.ciaosfs"
    assert mount.store == shared.store
