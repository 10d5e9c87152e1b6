"""Rules of POSIX one at a time, where the order of calls or a second process matters."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.caller import renameat2
from tests.support.mount import MountedStore, drop_caches

LONG_AGO_NS = 1_000_000_000 * 10**6
NOBODY = 65534


def run_child(code: str, directory: Path) -> subprocess.Popen[str]:
    """A Python process in *directory* that prints and reads lines."""
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=directory, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def as_nobody(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell command in *directory* as another user (the directory is entered before the user changes)."""
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=directory,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )


TIMED: dict[str, Callable[[Path], object]] = {
    "write": lambda d: (d / "file").write_bytes(b"new"),
    "append": lambda d: _append(d / "file"),
    "truncate": lambda d: os.truncate(d / "file", 1),
    "create": lambda d: (d / "new").touch(),
    "mkdir": lambda d: (d / "new").mkdir(),
    "symlink": lambda d: (d / "new").symlink_to("x"),
    "link": lambda d: os.link(d / "file", d / "new"),
    "rename": lambda d: (d / "file").rename(d / "new"),
    "rename over": lambda d: (d / "other").rename(d / "file"),
    "rename into": lambda d: (d / "file").rename(d / "sub" / "new"),
    "exchange": lambda d: renameat2(os.fsencode(d / "file"), os.fsencode(d / "other"), 2),
    "unlink": lambda d: (d / "file").unlink(),
    "rmdir": lambda d: (d / "sub").rmdir(),
    "chmod": lambda d: (d / "file").chmod(0o600),
    "chown": lambda d: os.chown(d / "file", os.getuid(), os.getgid()),
    "setxattr": lambda d: os.setxattr(d / "file", "user.x", b"1"),
    "open with O_TRUNC": lambda d: os.close(os.open(d / "file", os.O_WRONLY | os.O_TRUNC)),
    "nothing": lambda d: None,
}


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _moved_times(directory: Path, operation: Callable[[Path], object]) -> dict[str, tuple[bool, bool]]:
    """By name, whether *operation* moved its mtime and its ctime."""
    directory.mkdir()
    (directory / "sub").mkdir()
    for name in ("file", "other"):
        (directory / name).write_bytes(b"old")
    watched = {name: os.open(directory / name, os.O_RDONLY) for name in (".", "file", "other", "sub")}
    for descriptor in watched.values():
        os.utime(descriptor, ns=(LONG_AGO_NS, LONG_AGO_NS))
    before = {name: os.fstat(descriptor) for name, descriptor in watched.items()}
    time.sleep(0.02)  # several ticks of the coarse clock that ext4 stamps with
    operation(directory)
    moved = {}
    for name, descriptor in watched.items():
        after = os.fstat(descriptor)
        mtime_moved = after.st_mtime_ns != LONG_AGO_NS
        moved[name] = (mtime_moved, after.st_ctime_ns != before[name].st_ctime_ns)
        os.close(descriptor)
    return moved


@pytest.mark.parametrize("name", TIMED)
def test_the_same_times_move_as_on_a_plain_directory(workdir: Path, tmp_path: Path, name: str) -> None:
    assert _moved_times(workdir / "t", TIMED[name]) == _moved_times(tmp_path / "t", TIMED[name])


def test_what_is_done_later_never_looks_older(workdir: Path) -> None:
    """The kernel stamps what is written, the daemon what is made, named and changed: by one clock, for make(1)."""
    times = [workdir.stat().st_mtime_ns]
    for number in range(50):
        (workdir / "written").write_bytes(b"%d" % number)
        times.append((workdir / "written").stat().st_mtime_ns)
        (workdir / f"made{number}").mkdir()
        times.append((workdir / f"made{number}").stat().st_mtime_ns)
        (workdir / "written").write_bytes(b"%d again" % number)
        times.append((workdir / "written").stat().st_mtime_ns)
        (workdir / "written").chmod(0o600 + number % 2)
        times.append((workdir / "written").stat().st_ctime_ns)
        (workdir / "written").rename(workdir / "other")
        times.append(workdir.stat().st_mtime_ns)
    assert times == sorted(times)


def test_times_keep_their_nanoseconds_through_a_remount(shared_mount: MountedStore, workdir: Path) -> None:
    path = workdir / "file"
    path.write_bytes(b"x")
    os.utime(path, ns=(1_111_111_111_222_333_444, 1_555_555_555_666_777_888))
    shared_mount.remount()
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (
        1_111_111_111_222_333_444,
        1_555_555_555_666_777_888,
    )


def test_an_unlinked_open_file_lives_until_it_is_closed(shared_mount: MountedStore, workdir: Path) -> None:
    descriptor = os.open(workdir / "file", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"before")
    (workdir / "file").unlink()
    os.write(descriptor, b" after")
    drop_caches(shared_mount.path)
    assert os.pread(descriptor, 100, 0) == b"before after"
    status = os.fstat(descriptor)
    assert (status.st_nlink, status.st_size) == (0, 12)
    os.fchmod(descriptor, 0o600)
    os.fsync(descriptor)
    os.close(descriptor)
    assert os.listdir(workdir) == []


def test_a_directory_removed_while_open_is_empty(workdir: Path) -> None:
    (workdir / "gone").mkdir()
    descriptor = os.open(workdir / "gone", os.O_RDONLY)
    (workdir / "gone").rmdir()
    assert os.listdir(descriptor) == []
    with pytest.raises(FileNotFoundError):
        os.open("new", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor)
    os.close(descriptor)


def test_names_are_bytes(shared_mount: MountedStore, workdir: Path) -> None:
    root = os.fsencode(workdir)
    names = [bytes([value]) * 3 for value in range(1, 256) if value not in b"/."] + [
        b"x" * 255,
        b"...",
        b". ",
    ]
    for name in names:
        os.close(os.open(root + b"/" + name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    shared_mount.remount()
    assert sorted(os.listdir(root)) == sorted(names)
    for path in (root + b"/" + b"x" * 256, root + b"/" + b"y" * 300 + b"/z"):
        with pytest.raises(OSError) as caught:
            os.stat(path)
        assert caught.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize("count", [3000])
def test_a_listing_shows_what_stays_exactly_once_while_names_come_and_go(workdir: Path, count: int) -> None:
    stays = {f"stays{index}" for index in range(count)}
    for index in range(count):
        (workdir / f"stays{index}").touch()
        (workdir / f"goes{index}").touch()
    seen: list[str] = []
    with os.scandir(workdir) as entries:
        for index, entry in enumerate(entries):
            seen.append(entry.name)
            if index < count:
                os.unlink(workdir / f"goes{count - 1 - index}")
                os.close(os.open(workdir / f"comes{index}", os.O_CREAT | os.O_WRONLY))
    kept = [name for name in seen if name.startswith("stays")]
    assert len(kept) == len(stays) and set(kept) == stays
    assert len(seen) == len(set(seen))
    assert set(os.listdir(workdir)) == stays | {f"comes{index}" for index in range(count)}


def test_a_sparse_file_takes_no_room(shared_mount: MountedStore, workdir: Path) -> None:
    path = workdir / "sparse"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, 1 << 44)
    os.pwrite(descriptor, b"here", 1 << 43)
    os.close(descriptor)
    shared_mount.remount()
    assert path.stat().st_size == 1 << 44
    assert path.stat().st_blocks * 512 <= 1 << 20
    with path.open("rb") as file:
        file.seek((1 << 43) - 10)
        assert file.read(24) == bytes(10) + b"here" + bytes(10)
    with pytest.raises(OSError) as caught:
        os.truncate(path, (1 << 63) - 1)
    assert caught.value.errno == errno.EFBIG


def test_a_shrunk_file_grows_again_with_zeros(shared_mount: MountedStore, workdir: Path) -> None:
    path = workdir / "file"
    path.write_bytes(b"\xff" * 300_000)
    os.truncate(path, 5000)
    os.truncate(path, 200_000)
    drop_caches(shared_mount.path)
    assert path.read_bytes() == b"\xff" * 5000 + bytes(195_000)


def test_flock_and_fcntl_locks_hold_between_processes(workdir: Path) -> None:
    (workdir / "lock").write_bytes(b"x" * 100)
    code = (
        "import fcntl, sys\n"
        "a, b = open('lock', 'r+'), open('lock', 'r+')\n"
        "fcntl.lockf(a, fcntl.LOCK_EX, 10, 20)\n"
        "fcntl.flock(a, fcntl.LOCK_EX)\n"
        "print('locked', flush=True); sys.stdin.readline()\n"
    )
    child = run_child(code, workdir)
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.readline() == "locked\n"
    with (workdir / "lock").open("r+") as mine:
        fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
        for blocked in (
            lambda: fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 25),
            lambda: fcntl.flock(mine, fcntl.LOCK_SH | fcntl.LOCK_NB),
        ):
            with pytest.raises(BlockingIOError):
                blocked()
        child.communicate("\n", timeout=30)
        fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 25)
        fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_shared_mapping_is_one_memory_for_two_processes(shared_mount: MountedStore, workdir: Path) -> None:
    path = workdir / "map"
    path.write_bytes(bytes(1 << 20))
    code = (
        "import mmap, sys\n"
        "f = open('map', 'r+b'); m = mmap.mmap(f.fileno(), 0)\n"
        "m[5000:5005] = b'child'; print('ready', flush=True); sys.stdin.readline()\n"
        "assert m[9000:9006] == b'parent'; m.flush()\n"
    )
    child = run_child(code, workdir)
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        assert mapping[5000:5005] == b"child"
        assert os.pread(file.fileno(), 5, 5000) == b"child"
        os.pwrite(file.fileno(), b"parent", 9000)
        assert mapping[9000:9006] == b"parent"
        child.communicate("\n", timeout=30)
        assert child.returncode == 0
    shared_mount.remount()
    content = path.read_bytes()
    assert content[5000:5005] == b"child" and content[9000:9006] == b"parent"


def test_fifos_and_sockets_connect_processes(workdir: Path) -> None:
    os.mkfifo(workdir / "fifo")
    child = run_child("open('fifo', 'w').write('through')", workdir)
    assert (workdir / "fifo").read_text() == "through"
    child.communicate(timeout=30)
    assert child.returncode == 0
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(workdir)  # the path of a socket is limited to 107 bytes
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind("socket")
            server.listen()
            client.connect("socket")
            client.sendall(b"hello")
            with server.accept()[0] as accepted:
                assert accepted.recv(5) == b"hello"
    finally:
        os.fchdir(here)
        os.close(here)
    assert stat.S_ISSOCK((workdir / "socket").lstat().st_mode)


def test_a_program_is_run_from_the_mount(workdir: Path) -> None:
    program = workdir / "program"
    program.write_text("#!/bin/sh\necho ran $1\n")
    with pytest.raises(PermissionError):
        subprocess.run([program], check=False)
    program.chmod(0o755)
    assert subprocess.run([program, "it"], check=True, capture_output=True, text=True).stdout == "ran it\n"
    with program.open("ab"):
        pass
    (workdir / "true").write_bytes(Path("/bin/true").resolve().read_bytes())
    (workdir / "true").chmod(0o700)
    assert subprocess.run([workdir / "true"], check=False).returncode == 0


def test_one_of_many_creates_with_o_excl(workdir: Path) -> None:
    code = (
        "import os, sys\nsys.stdin.readline(); won = 0\n"
        "for i in range(200):\n"
        "    try: os.close(os.open(f'n{i}', os.O_CREAT | os.O_EXCL | os.O_WRONLY)); won += 1\n"
        "    except FileExistsError: pass\n"
        "print(won)\n"
    )
    children = [run_child(code, workdir) for _ in range(4)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    assert sum(int(child.communicate(timeout=60)[0]) for child in children) == 200


def test_hundreds_of_files_open_at_once(workdir: Path) -> None:
    descriptors = [os.open(workdir / f"f{index}", os.O_RDWR | os.O_CREAT) for index in range(400)]
    for index, descriptor in enumerate(descriptors):
        os.write(descriptor, str(index).encode() * 500)
    for index in range(0, 400, 2):
        (workdir / f"f{index}").unlink()
    for index, descriptor in enumerate(descriptors):
        assert os.pread(descriptor, 5000, 0) == str(index).encode() * 500
        os.close(descriptor)


def test_every_kind_of_sync_answers(workdir: Path) -> None:
    (workdir / "file").write_bytes(b"x")
    directory = os.open(workdir, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    subprocess.run(["sync", "-f", str(workdir / "file")], check=True)
    descriptor = os.open(workdir / "file", os.O_WRONLY | os.O_SYNC)
    assert os.write(descriptor, b"synced") == 6
    os.close(descriptor)


@pytest.mark.root
def test_other_users_meet_the_permissions(workdir: Path) -> None:
    workdir.chmod(0o755)
    for name, mode in (("closed", 0o600), ("open", 0o644), ("suid", 0o4777)):
        (workdir / name).write_text(name)
        (workdir / name).chmod(mode)
    (workdir / "sticky").mkdir()
    (workdir / "sticky").chmod(0o1777)
    (workdir / "sticky" / "mine").write_text("mine")
    (workdir / "group").mkdir()
    os.chown(workdir / "group", 0, 12345)
    (workdir / "group").chmod(0o2777)
    for refused in ("cat closed", "echo x > new", "echo x > open", "rm -f sticky/mine", "chmod 777 open"):
        assert as_nobody(refused, workdir).returncode != 0, refused
    assert as_nobody("cat open && echo x > sticky/theirs && rm sticky/theirs", workdir).stdout == "open"
    assert as_nobody("echo x >> suid; touch group/theirs; mkdir group/sub", workdir).returncode == 0
    assert stat.S_IMODE((workdir / "suid").stat().st_mode) == 0o777, (
        "a write by others takes the set-user-id bit"
    )
    theirs = (workdir / "group" / "theirs").stat()
    assert (theirs.st_uid, theirs.st_gid) == (NOBODY, 12345)
    assert (workdir / "group" / "sub").stat().st_mode & stat.S_ISGID


@pytest.mark.root
def test_access_control_lists_are_obeyed_and_inherited(shared_mount: MountedStore, workdir: Path) -> None:
    workdir.chmod(0o755)
    (workdir / "file").write_text("secret")
    (workdir / "file").chmod(0o600)
    assert as_nobody("cat file", workdir).returncode != 0
    subprocess.run(["setfacl", "-m", f"u:{NOBODY}:r", workdir / "file"], check=True)
    assert as_nobody("cat file", workdir).stdout == "secret"
    (workdir / "shared").mkdir(0o700)
    subprocess.run(["setfacl", "-m", f"u:{NOBODY}:rwx,d:u:{NOBODY}:rwx", workdir / "shared"], check=True)
    mask = os.umask(0)  # the kernel applies it before a FUSE file system can look at the default list
    (workdir / "shared" / "below").mkdir()
    os.umask(mask)
    shared_mount.remount()
    assert as_nobody("echo x > shared/below/file && cat shared/below/file", workdir).stdout == "x\n"
