"""What the benchmark runs on: each target can be started, emptied of caches, asked for its memory, stopped.

*plain* is a directory on the disk that also carries the store, *ceiling* is `tools/ceiling_fs`, *ciaosfs* is
a fresh store with its default drives. Everything lies under one base directory: all use the same disk.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

START_DEADLINE_S = 30.0
FREEING_S = 0.1
"""For so long after caches were dropped processors are seen to be busy with it."""


class BenchError(Exception):
    """A target could not be started; the message says which and why."""


class Target:
    """A directory the phases work in. Used as a context manager; `directory` is valid inside."""

    name = "plain"

    def __init__(self, base: Path) -> None:
        self.base = base / self.name
        self.directory = self.base / "files"

    def __enter__(self) -> Target:
        self.directory.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def pid(self) -> int | None:
        """Process id of the daemon that serves the directory, if there is one."""
        return None

    def memory(self) -> dict[str, float]:
        """Peak and present memory of the daemon in MiB (empty without a daemon)."""
        pid = self.pid()
        if pid is None:
            return {}
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        return {
            "peak_mib": int(fields["VmHWM"].split()[0]) / 1024,
            "rss_mib": int(fields["VmRSS"].split()[0]) / 1024,
        }


class Ceiling(Target):
    """The in-memory file system behind pyfuse3's own loop."""

    name = "ceiling"
    options: Sequence[str] = ()

    def __enter__(self) -> Ceiling:
        super().__enter__()
        root = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-m", "tools.ceiling_fs", *self.options, str(self.directory)]
        self._process = subprocess.Popen(command, cwd=root)
        wait_mounted(self.directory, self._process)
        return self

    def __exit__(self, *_: object) -> None:
        unmount(self.directory)
        self._process.wait(START_DEADLINE_S)

    def pid(self) -> int:
        return self._process.pid


class Peer(Ceiling):
    """The same, asked everything that ciaosfs is asked."""

    name = "peer"
    options = ("--peer",)


class Ciaosfs(Target):
    """A store of `data` + `parity` made and mounted with the commands a user has."""

    name = "ciaosfs"

    def __init__(self, base: Path, command: Sequence[str], data: int = 4, parity: int = 2) -> None:
        super().__init__(base)
        self._command = list(command)
        self._counts = (data, parity)
        self._pid: int | None = None

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([*self._command, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"ciaosfs {arguments[0]} failed ({done.returncode}): {done.stderr.strip()}")
        return done.stdout

    def __enter__(self) -> Ciaosfs:
        super().__enter__()
        store = str(self.base / "store")
        data, parity = self._counts
        self._run("mkfs", store, "--data", str(data), "--parity", str(parity))
        self._run("mount", store, str(self.directory))
        status = json.loads(self._run("status", str(self.directory), "--json"))
        self._pid = int(status["pid"])
        return self

    def __exit__(self, *_: object) -> None:
        self._run("umount", str(self.directory))

    def pid(self) -> int | None:
        return self._pid


class Given(Target):
    """A directory that is already there, named on the command line as NAME=PATH."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.base = path
        self.directory = path / f"bench.{os.getpid()}"


def ciaosfs_command() -> list[str]:
    """How to call ciaosfs: the script installed beside this interpreter, else the module."""
    beside = Path(sys.executable).with_name("ciaosfs")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "ciaosfs"]


def wait_mounted(mountpoint: Path, process: subprocess.Popen[bytes]) -> None:
    """Return when *mountpoint* is a mount; BenchError when *process* ends first or takes too long."""
    deadline = time.monotonic() + START_DEADLINE_S
    while not mountpoint.is_mount():
        if process.poll() is not None:
            raise BenchError(f"the file system for {mountpoint} ended with status {process.returncode}")
        if time.monotonic() > deadline:
            process.terminate()
            raise BenchError(f"{mountpoint} was not mounted within {START_DEADLINE_S:.0f} s")
        time.sleep(0.02)


def unmount(mountpoint: Path) -> None:
    """Take a FUSE mount away, as root or as its owner; lazily when a failed phase still holds a file open."""
    command = ["umount"] if os.getuid() == 0 else ["fusermount3", "-u"]
    if subprocess.run([*command, str(mountpoint)], check=False, capture_output=True).returncode:
        subprocess.run([*command, "-l" if os.getuid() == 0 else "-z", str(mountpoint)], check=True)


def sync_file_system(path: Path) -> None:
    """syncfs(2) and fsync of the directory *path*: not sync(2), which waits for every mount of the machine."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
        os.fsync(descriptor)  # the call that a FUSE daemon gets to see
    finally:
        os.close(descriptor)


def settle(target: Target) -> None:
    """Let what earlier phases left behind reach the disk, so that it is not paid for by the next one."""
    sync_file_system(target.directory)
    sync_file_system(target.base)


def drop_caches(target: Target) -> str:
    """Make the next read cold. Returns how: all kernel caches as root, else the pages of its files.

    As root that is done to everybody, and the kernel frees what all of them had cached a little later, in soft interrupts
    (RCU), while the daemons are told to forget inodes. Nobody is to be timed meanwhile.
    """
    settle(target)
    with suppress(PermissionError):
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        time.sleep(FREEING_S)
        return "drop_caches"
    for directory, _, names in os.walk(target.base):
        for name in names:
            descriptor = os.open(os.path.join(directory, name), os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
    return "posix_fadvise"
