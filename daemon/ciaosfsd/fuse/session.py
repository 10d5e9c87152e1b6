"""One FUSE session: check the mount point, mount, serve until unmounted, let go.

The kernel's answers are a day old at most (`attributes.CACHE_S`), and its writeback cache holds bytes that this
process has not seen. Therefore a stop from this side goes through umount(2), in a thread while the loop serves
the writes it causes; only when files are in use is the cache written back with syncfs(2) and the session ended
under their users, who get ENOTCONN from then on.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyfuse3
import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import MountError
from ciaosfs.base.log import RateLimit
from ciaosfs.client import mounts
from ciaosfs.drive.workers import Workers
from ciaosfsd import memory
from ciaosfsd.fuse.awake import Awake
from ciaosfsd.fuse.errors import guarded
from ciaosfsd.fuse.loop import Loop
from ciaosfsd.fuse.operations import Handlers
from ciaosfsd.fuse.ready import ReadyListings
from ciaosfsd.fuse.waiting import Waiting
from ciaosfsd.metrics.requests import Requests

if TYPE_CHECKING:
    from ciaosfs.fs.filesystem import FileSystem

log = logging.getLogger(__name__)

FUSE_DEVICE = Path("/dev/fuse")
WORKERS_IDLE_MAX = 64
WORKERS_MAX = 256
"""pyfuse3 starts a worker when all others are inside handlers, and ends one when more than the former are idle.
Far above MAX_BACKGROUND, so that writers who wait for room in memory leave workers for everybody else; each
may hold a request of 1 MiB."""
READ_AHEAD_KIB = 4096
"""With the default of 128 reads arrive in pieces of 128 KiB, whatever the program asks for."""
MAX_BACKGROUND = 64
CONGESTION_THRESHOLD = 48


def check_mountpoint(mountpoint: Path) -> Path:
    """Raise MountError unless a store could be mounted at `mountpoint`; return it absolute and resolved.

    For before anything is opened or changed.
    """
    resolved = mounts.resolve_mountpoint(mountpoint)
    mounted = mounts.mount_at(resolved)
    if mounted is not None and mounted.fstype.startswith("fuse"):
        what = f"store {mounted.store}" if mounted.store is not None else mounted.fstype
        raise MountError(
            f"{mountpoint} is already a mount point ({what}): unmount it or give another directory."
        )
    try:
        found = mountpoint.stat()
        resolved = mountpoint.resolve()
        is_empty = not stat.S_ISDIR(found.st_mode) or not any(mountpoint.iterdir())
    except FileNotFoundError:
        raise MountError(f"{mountpoint} does not exist: make it with 'mkdir -p {mountpoint}'.") from None
    except OSError as error:
        raise MountError(f"{mountpoint} cannot be used as a mount point: {error.strerror}.") from error
    if not stat.S_ISDIR(found.st_mode):
        raise MountError(f"{mountpoint} is not a directory: give a directory to mount at.")
    if not is_empty:
        raise MountError(f"{mountpoint} is not empty: give an empty directory to mount at.")
    if not FUSE_DEVICE.exists():
        raise MountError(f"{FUSE_DEVICE} does not exist: load the kernel's module with 'modprobe fuse'.")
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise MountError("fusermount3 is needed to mount as a user: install the package fuse3.")
    return resolved


class Session:
    """A mounted file system. Made by `mounted`; `serve` runs once."""

    def __init__(self, mountpoint: Path, loop: Loop, ready: ReadyListings, workers: Workers) -> None:
        self.mountpoint = mountpoint
        self.loop = loop
        self._ready = ready
        self._workers = workers
        self._stopping = False

    async def serve(self) -> None:
        """Answer requests until the file system is unmounted or `stop` ends it."""
        await pyfuse3.main(min_tasks=WORKERS_IDLE_MAX, max_tasks=WORKERS_MAX)

    async def work_ahead(self) -> None:
        """Make answers ready while nobody asks for anything; for ever, or until that fails: it is a convenience."""
        try:
            await self._ready.use_quiet(lambda: self.loop.requests)
        except Exception:
            log.exception("working ahead failed, the mount goes on without")

    async def rest_when_quiet(self) -> None:
        """Let processors sleep whenever nobody asks for anything; for ever."""
        await self.loop.awake.rest_when_quiet(lambda: self.loop.requests)

    async def give_back_memory(self, count_calls: Callable[[], int]) -> None:
        """Give memory back whenever nobody asks for anything, here or by the calls that are counted; for ever."""
        trim = memory.find_trim()
        if trim is not None:
            await memory.give_back(self._workers, lambda: self.loop.requests + count_calls(), trim)

    async def wait_answering(self) -> None:
        """Return when the mount answers a stat(2), and tune what the kernel lets be tuned from then on."""
        await self._workers.run(os.stat, self.mountpoint)
        # Not before: the kernel's answer to INIT would set them back.
        await self._workers.run(_tune, self.mountpoint)

    async def flush_kernel(self) -> None:
        """Have the kernel hand over what its cache holds of written data; raises OSError."""
        await self._workers.run(write_back, self.mountpoint)

    async def stop(self) -> None:
        """Unmount; when files are in use, take over what the kernel holds and end the session under them."""
        if self._stopping:
            return
        self._stopping = True
        try:
            await self._workers.run(mounts.unmount, self.mountpoint)
        except MountError as error:
            if error.errno == errno.EINVAL:
                return
            log.warning("stopping although in use: %s", error)
            try:
                await self.flush_kernel()
            except OSError as failure:
                log.error("the kernel's cache was not written back: %s", failure)
            pyfuse3.terminate()


@contextmanager
def mounted(
    filesystem: FileSystem,
    handlers: Handlers,
    ready: ReadyListings,
    mountpoint: Path,
    store: Path,
    workers: Workers,
    requests: Requests,
    wanted: Collection[str] = (),
    is_awaited: Callable[[], bool] = lambda: False,
    awake: Awake | None = None,
) -> Iterator[Session]:
    """Mount `filesystem` at `mountpoint`, as `check_mountpoint` returned it; on leaving it is not mounted.

    `handlers` answer what is asked and `requests` counts it, `ready` works ahead while nobody asks, `wanted` are some of
    `mounts.MOUNT_OPTIONS`. `is_awaited` and `awake` are as for `Loop`.
    Raises MountError when the kernel or fusermount3 refuses.
    """
    loop = Loop(
        waiting=Waiting(idle=ready.use_idle_moment, is_digesting=ready.is_digesting),
        settle=filesystem.settle,
        is_awaited=is_awaited,
        awake=awake,
    )
    logging.getLogger("pyfuse3").addFilter(_is_rare)
    pyfuse3.trio = loop  # type: ignore[attr-defined]  # the seam that pyfuse3.asyncio uses, too
    try:
        _init(guarded(handlers, requests), mountpoint, _options(store, wanted))
        log.info("mounted at=%s", mountpoint)
        try:
            yield Session(mountpoint, loop, ready, workers)
        finally:
            # Does nothing when the kernel has unmounted it already; lazily otherwise.
            pyfuse3.close(unmount=True)
            loop.awake.rest(loop.requests, time.monotonic())
            log.info(
                "unmounted requests=%d parked=%d vanished=%d escaped=%d awake=%.1fs",
                loop.requests,
                loop.parked,
                loop.vanished,
                loop.escaped,
                loop.awake.held_s,
            )
    finally:
        pyfuse3.trio = trio  # type: ignore[attr-defined]


_replies = RateLimit(burst=10, interval_s=60.0)


def _is_rare(record: logging.LogRecord) -> bool:
    # pyfuse3 logs an error for each answer that found nobody any more: the process was killed.
    return _replies.allows(str(record.msg))


def _options(store: Path, wanted: Collection[str]) -> set[str]:
    options = {
        "default_permissions",
        f"fsname={mounts.source_of(store)}",
        f"subtype={mounts.SUBTYPE}",
        *wanted,
    }
    if os.geteuid() == 0:
        # What a local disk allows: others may use it, device nodes and set-user-id work.
        options |= {"allow_other"} | {kind for kind in ("dev", "suid") if f"no{kind}" not in wanted}
    return options


def _init(operations: pyfuse3.Operations, mountpoint: Path, options: set[str]) -> None:
    # libfuse and fusermount3 explain themselves on stderr only.
    talk = os.memfd_create("fuse-stderr", os.MFD_CLOEXEC)
    kept = os.dup(2)
    try:
        os.dup2(talk, 2)
        try:
            pyfuse3.init(operations, os.fspath(mountpoint), options)
        finally:
            os.dup2(kept, 2)
    except RuntimeError as error:
        said = os.pread(talk, 4 * limits.KIB, 0).decode(errors="replace")
        reason = " ".join(said.split()) or str(error)
        raise MountError(f"Mounting at {mountpoint} was refused: {reason}.") from error
    finally:
        os.close(talk)
        os.close(kept)


def _tune(mountpoint: Path) -> None:
    mount = mounts.mount_at(mountpoint)
    if mount is None:
        return
    connection = Path("/sys/fs/fuse/connections") / mount.device.partition(":")[2]
    wanted = {
        Path("/sys/class/bdi") / mount.device / "read_ahead_kb": READ_AHEAD_KIB,
        connection / "max_background": MAX_BACKGROUND,
        connection / "congestion_threshold": CONGESTION_THRESHOLD,
    }
    refused = []
    for path, value in wanted.items():
        try:
            path.write_text(f"{value}\n")
        except OSError as error:  # not root, or fusectl is not mounted: slower, not wrong
            refused.append(f"{path.name} ({error.strerror})")
    if refused:
        log.info("the kernel keeps its own %s", ", ".join(refused))


def write_back(mountpoint: Path) -> None:
    """Have the kernel hand over what its cache holds of written data; blocking, and the loop must run. Raises OSError."""
    # Not pyfuse3.syncfs, which keeps the interpreter lock while it waits for this very process.
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), os.fspath(mountpoint))
    finally:
        os.close(descriptor)
