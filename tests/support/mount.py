"""A store made and mounted with the commands a user has, for tests that need the real thing.

`MountedStore` is a context manager: inside it the store is mounted, afterwards it is unmounted whatever
happened (a mount that hangs is aborted through the kernel's control file system, so that no test can block
the others), and a traceback or a warning in the daemon's log that the test did not announce with
`expect_log` fails the test.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tools.bench.targets import ciaosfs_command, sync_file_system

ROOT = Path(__file__).resolve().parents[2]
WATCHDOG_S = 240.0
"""Longer than any mount test may take: then the mount is taken for hung and its connection is aborted."""
WAIT_S = 30.0
COMMAND_S = 90.0

_TROUBLE = re.compile(r" (WARNING|ERROR|CRITICAL) |^Traceback ")


class MountedStore:
    """One store below *base*: `store`, `path` (the mount point), and the commands on them."""

    def __init__(self, base: Path, mkfs_arguments: Sequence[str] = ()) -> None:
        self.base = base
        self.store = base / "store"
        self.path = base / "mount"
        self._mkfs_arguments = list(mkfs_arguments)
        self._expected: list[re.Pattern[str]] = []
        self._watchdog: threading.Timer | None = None
        self._kept_log = ""
        self._is_made = False

    # Commands

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `ciaosfs` with *arguments*; with *check*, a failure is an AssertionError with what it said."""
        done = subprocess.run(
            [*ciaosfs_command(), *arguments],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=COMMAND_S,
            check=False,
        )
        if check:
            said = f"{done.stdout}{done.stderr}"
            assert done.returncode == 0, f"ciaosfs {' '.join(arguments)}: status {done.returncode}: {said}"
        return done

    def mkfs(self) -> None:
        self.run("mkfs", str(self.store), *self._mkfs_arguments)

    def mount(self) -> subprocess.CompletedProcess[str]:
        self.path.mkdir(exist_ok=True)
        done = self.run("mount", str(self.store), str(self.path))
        assert self.path.is_mount(), "ciaosfs mount returned and nothing is mounted"
        self._watchdog = threading.Timer(WATCHDOG_S, self.abort)
        self._watchdog.daemon = True
        self._watchdog.start()
        return done

    def umount(self) -> None:
        self._stop_watchdog()
        self.run("umount", str(self.path))
        assert not is_mounted(self.path), "ciaosfs umount returned and the mount is still there"

    def try_umount(self) -> bool:
        """Whether it could be unmounted; False when it was in use."""
        self._stop_watchdog()
        done = self.run("umount", str(self.path), check=False)
        assert done.returncode == 0 or "in use" in done.stderr, done.stderr
        return done.returncode == 0

    def remount(self) -> subprocess.CompletedProcess[str]:
        self.umount()
        return self.mount()

    def sync(self) -> None:
        self.run("sync", str(self.path))

    def status(self) -> dict[str, Any]:
        value = json.loads(self.run("status", str(self.path), "--json").stdout)
        assert isinstance(value, dict)
        return value

    def drives(self) -> list[Path]:
        """Where the drives are by default."""
        return [self.store / "drives" / f"d{number}" for number in range(6)]

    # Ends, good and bad

    def kill(self) -> None:
        """kill -9 the daemon and take away the mount it leaves behind."""
        self.kill_only()
        detach(self.path)

    def kill_only(self) -> None:
        """kill -9 the daemon; its dead mount stays."""
        self._stop_watchdog()
        pid = int(self.status()["pid"])
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), f"process {pid} is still there after SIGKILL")

    def abort(self) -> None:
        """Make every request that waits on the mount fail: what is left to do when the daemon hangs."""
        print(f"aborting the hung mount {self.path}", file=sys.stderr, flush=True)
        for connection in connections(self.path):
            with suppress(OSError):
                (connection / "abort").write_text("1")

    def _stop_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    def __enter__(self) -> MountedStore:
        self.base.mkdir(parents=True, exist_ok=True)
        try:
            if not self._is_made:
                self.mkfs()
            self.mount()
        except BaseException:
            self._leave()
            raise
        return self

    @contextmanager
    def already_made(self) -> Iterator[MountedStore]:
        """As the context manager itself, of a store that `mkfs` made before."""
        self._is_made = True
        with self:
            yield self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            print(f"--- the log of {self.store}:\n{self.log()[-4000:]}", file=sys.stderr)
            self._leave()
            return
        try:
            if is_mounted(self.path):
                self.umount()
            self.check_log()
        finally:
            self._leave()
        shutil.rmtree(self.base, ignore_errors=True)

    def _leave(self) -> None:
        """Leave nothing behind that is mounted or running."""
        self._stop_watchdog()
        if not is_mounted(self.path):
            return
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.umount()
        if is_mounted(self.path):
            self.abort()
            detach(self.path)

    # The log

    def expect_log(self, pattern: str) -> None:
        """Announce that lines matching *pattern* are no failure."""
        self._expected.append(re.compile(pattern))

    def log(self) -> str:
        """Everything the daemon has logged."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.store.rglob("*.log*")))

    def check_log(self) -> None:
        """Fail on a warning, an error or a traceback nobody announced."""
        unexpected = [
            line
            for line in self.log().splitlines()
            if _TROUBLE.search(line) and not any(pattern.search(line) for pattern in self._expected)
        ]
        assert not unexpected, "the daemon logged:\n" + "\n".join(unexpected[:20])


def environment() -> dict[str, str]:
    """The environment of commands: this checkout first on Python's path."""
    paths = [str(ROOT), str(ROOT / "daemon"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def wait_until(is_so: Callable[[], bool], message: str, deadline_s: float = WAIT_S) -> None:
    """Return as soon as *is_so*; AssertionError with *message* when it takes too long."""
    end = time.monotonic() + deadline_s
    while not is_so():
        assert time.monotonic() < end, message
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def is_mounted(path: Path) -> bool:
    """Whether something is mounted at *path*, even if its daemon is dead."""
    return any(place == path for _, place, _ in _fuse_mounts())


def connections(path: Path) -> list[Path]:
    """The kernel's control directories of the FUSE mounts at *path*."""
    return [Path(f"/sys/fs/fuse/connections/{minor}") for minor, place, _ in _fuse_mounts() if place == path]


def _fuse_mounts() -> list[tuple[str, Path, str]]:
    """(minor device number, mount point, type) of every FUSE mount."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        words, kind = fields.split(" "), rest.split(" ")[0]
        if kind.startswith("fuse") and kind != "fusectl":
            place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), words[4])
            found.append((words[2].partition(":")[2], Path(place), kind))
    return found


def detach(path: Path) -> None:
    """Take a mount out of the tree, busy or not."""
    command = ["umount", "-l"] if os.getuid() == 0 else ["fusermount3", "-uz"]
    subprocess.run([*command, str(path)], check=False, capture_output=True)


def detach_leftovers(below: Path) -> None:
    """Take away dead mounts under *below* that an interrupted run left behind; living ones have an owner."""
    for _, place, _ in _fuse_mounts():
        if place.is_relative_to(below):
            try:
                place.stat()
            except OSError as error:
                if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
                    detach(place)


def drop_caches(*paths: Path) -> None:
    """Make the kernel ask again: all caches as root, else the pages of the files below *paths*."""
    for path in paths:
        try:
            sync_file_system(path)
        except OSError as error:
            # The kernel tells everybody once that an earlier write found no room; its writer was told, too.
            if error.errno != errno.ENOSPC:
                raise
    with suppress(PermissionError):
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        return
    for path in paths:
        for directory, _, names in os.walk(os.fsencode(path)):
            for name in names:
                file = os.path.join(directory, name)
                if stat.S_ISREG(os.lstat(file).st_mode):
                    with open(file, "rb") as opened:
                        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
