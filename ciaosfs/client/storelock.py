"""The lock file of a store: `STORE/lock`. Whoever owns the store holds flock(2) on it and says so inside.

The content is one JSON object: the holder's pid, mount point and control socket while it is held; how the
holder ended, after it let go in good order. A holder that was killed leaves its own entry behind, unlocked. Who has
the store for a while only (a check) keeps what was there in `before`, and puts it back; killed, it leaves that behind.
So one file answers who has the store, how to reach it, and whether the last unmount got everything onto the drives.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ciaosfs.base import clock
from ciaosfs.base.errors import StoreBusyError, StoreError
from ciaosfs.client import mounts

LOCK_NAME = "lock"
LOCK_BYTES_MAX = 16384
WAIT_S = 10.0
"""How long a new owner waits for one that is just shutting down: umount(2) returns before the daemon is done."""
_RETRY_S = 0.05


@dataclass(frozen=True, slots=True)
class Holder:
    """Who owns a store. `mountpoint` and `socket` are empty for a command that works on the store itself."""

    pid: int
    mountpoint: str = ""
    socket: str = ""

    @property
    def is_command(self) -> bool:
        """Whether it says that it is no daemon with a mount; pid 0 says nothing."""
        return self.pid != 0 and not self.mountpoint


@dataclass(frozen=True, slots=True)
class Ending:
    """How the last owner ended; exit status 0 means that everything is on the drives."""

    exit_code: int
    message: str = ""


class StoreLock:
    """The held lock. Made by `hold`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._before = _left_behind(_content(descriptor))
        self._is_passing = True
        self._write({"holder": asdict(Holder(os.getpid())), "before": self._before})

    def announce(self, holder: Holder) -> None:
        """Say who holds it and how to reach them: from now on how the owner before ended is of no interest."""
        self._is_passing = False
        self._write({"holder": asdict(holder)})

    def end(self, ending: Ending) -> None:
        """Leave word of how it ended; the lock goes when `hold` is left."""
        self._is_passing = False
        self._write({"ending": asdict(ending)})

    def put_back(self) -> None:
        """Leave what was there, if nothing was announced."""
        if self._is_passing:
            self._write(self._before)

    def _write(self, fields: dict[str, Any] | None) -> None:
        # One line is written over the other before the rest is cut off: killed in between, it is whole all the same.
        content = b"" if fields is None else json.dumps(fields).encode() + b"\n"
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))


@contextmanager
def hold(store: Path, wait_s: float = WAIT_S) -> Iterator[StoreLock]:
    """Own the store while in this context. Unless something is announced, the file says afterwards what it said before.

    Waits up to `wait_s` while the holder is on its way out (its mount is gone). Raises StoreBusyError when it
    is not, or takes longer, and StoreError when the lock file cannot be opened.
    """
    descriptor = _open(store / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    try:
        _acquire(store, descriptor, wait_s)
        lock = StoreLock(descriptor)
        try:
            yield lock
        finally:
            lock.put_back()
    finally:
        os.close(descriptor)


def _acquire(store: Path, descriptor: int, wait_s: float) -> None:
    deadline = clock.monotonic_s() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(_fields(_content(descriptor)))
            mounted = mounts.mount_of_store(store)
            if mounted is not None or clock.monotonic_s() >= deadline:
                raise StoreBusyError(_busy_sentence(store, holder, mounted)) from None
            time.sleep(_RETRY_S)
        else:
            return


def _busy_sentence(store: Path, holder: Holder | None, mounted: mounts.Mount | None) -> str:
    who = f"process {holder.pid}" if holder is not None else "another process"
    if mounted is not None and (holder is None or not holder.is_command):
        return (
            f"Store {store} is already mounted at {mounted.mountpoint} by {who}: "
            f"use it there, or 'ciaosfs umount {mounted.mountpoint}' first."
        )
    return f"Store {store} is in use by {who}, which has not let go of it: see whether that process hangs."


def read_lock(store: Path) -> tuple[Holder | None, Ending | None]:
    """(who holds the store now, how the last owner ended); the first is None when nobody holds it.

    An owner that was killed leaves neither.
    """
    path = store / LOCK_NAME
    try:
        descriptor = _open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None, None
    try:
        is_held = _is_held(descriptor)
        content = _content(descriptor)
        if is_held:
            return _holder(_fields(content)) or Holder(0), None
        return None, _ending(_left_behind(content) or {})
    finally:
        os.close(descriptor)


def was_owned(store: Path) -> bool:
    """Whether the store has had an owner yet: with no holder and no ending that one was killed."""
    try:
        descriptor = _open(store / LOCK_NAME, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return _left_behind(_content(descriptor)) is not None
    finally:
        os.close(descriptor)


def detach_dead_mount(store: Path, mountpoint: Path) -> bool:
    """Take away what a daemon of `store` that was killed left mounted at the resolved `mountpoint`.

    False when there is no such thing: nothing is mounted there, or something of somebody else, or the store is
    held, so that its daemon lives. Raises MountError when the dead mount cannot be taken away.
    """
    if not _has_mount_of(store, mountpoint):
        return False
    try:
        with hold(store, 0.0):  # meanwhile no daemon can mount it
            has_detached = False
            while _has_mount_of(store, mountpoint) and mounts.is_dead(mountpoint):
                mounts.detach(mountpoint)
                has_detached = True
            return has_detached
    except StoreBusyError:
        return False


def _has_mount_of(store: Path, mountpoint: Path) -> bool:
    mount = mounts.mount_at(mountpoint)
    return mount is not None and mount.store == store


def wait_released(
    store: Path, wait_s: float, is_another: Callable[[Holder], bool] = lambda holder: False
) -> bool:
    """Block until nobody holds the store, or one who `is_another`; False when that takes longer than `wait_s`."""
    deadline = clock.monotonic_s() + wait_s
    while (holder := read_lock(store)[0]) is not None and not is_another(holder):
        if clock.monotonic_s() >= deadline:
            return False
        time.sleep(_RETRY_S)
    return True


def _is_held(descriptor: int) -> bool:
    # A shared lock for an instant: an owner that tries just then finds nothing mounted and tries again.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror}.") from error


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, LOCK_BYTES_MAX, 0)


def _fields(content: bytes) -> dict[str, Any]:
    """What the file says; nothing for one that is empty, half-written, or of a later version."""
    try:
        fields = json.loads(content.partition(b"\n")[0])
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _left_behind(content: bytes) -> dict[str, Any] | None:
    """What the last owner left, whoever had the store for a while since then; None when there was none yet."""
    if not content:
        return None
    fields = _fields(content)
    before = fields.get("before", fields)
    return before if before is None or isinstance(before, dict) else {}


def _holder(fields: dict[str, Any]) -> Holder | None:
    try:
        entry = fields["holder"]
        return Holder(int(entry["pid"]), str(entry["mountpoint"]), str(entry["socket"]))
    except (ValueError, KeyError, TypeError):
        return None


def _ending(fields: dict[str, Any]) -> Ending | None:
    try:
        entry = fields["ending"]
        return Ending(int(entry["exit_code"]), str(entry["message"]))
    except (ValueError, KeyError, TypeError):
        return None
