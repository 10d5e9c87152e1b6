"""What can be asked of the daemon as a whole: status, sync, stop."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ciaosfs.base import clock
from ciaosfs.base.config import StoreConfig
from ciaosfs.base.errors import CiaosError, NoSpaceError, StoreError
from ciaosfsd.control.call import Call, Operation
from ciaosfsd.control.needs import ADMIN, OWNER

if TYPE_CHECKING:
    from ciaosfs.fs.filesystem import FileSystem

log = logging.getLogger(__name__)


class AdminHandlers:
    """The handlers of one mounted store.

    `flush_kernel` brings over what the kernel's cache holds, `stop` begins to unmount and returns at once,
    `lost_stripes` are those that repair found to be lost.
    """

    def __init__(
        self,
        config: StoreConfig,
        filesystem: FileSystem,
        mountpoint: os.PathLike[str],
        flush_kernel: Callable[[], Awaitable[None]],
        stop: Callable[[], None],
        lost_stripes: Callable[[], Collection[int]],
    ) -> None:
        self._config = config
        self._fs = filesystem
        self._mountpoint = os.fspath(mountpoint)
        self._flush_kernel = flush_kernel
        self._stop = stop
        self._lost_stripes = lost_stripes
        self._started_s = clock.monotonic_s()

    def operations(self) -> tuple[Operation, ...]:
        return (
            Operation("status", ADMIN, self.status),
            Operation("sync", ADMIN, self.sync),
            Operation("stop", OWNER, self.stop),
        )

    async def status(self, call: Call) -> dict[str, Any]:
        """The state of the store; sizes in bytes, ages and durations in seconds."""
        status = self._fs.status()
        by_missing = await self._fs.stripes_by_missing()
        by_spare = await self._fs.stripes_by_spare(self._lost_stripes())
        commit = status.commit
        return {
            "pid": os.getpid(),
            "uptime_s": clock.monotonic_s() - self._started_s,
            "mountpoint": self._mountpoint,
            "store": os.fspath(self._config.path),
            "data": self._config.data_count,
            "parity": self._config.parity_count,
            "space": {
                "total": status.space.total,
                "free": status.space.free,
                "available": status.space.available,
            },
            "inodes": status.inodes,
            "open_handles": status.open_handles,
            "dirty_bytes": status.pending_bytes,
            "stripes_by_missing": {str(missing): n for missing, n in by_missing.items()},
            "stripes_by_spare": {str(spare): n for spare, n in by_spare.items()},
            "drives": [
                {
                    "number": drive.number,
                    "path": os.fspath(drive.path),
                    "state": str(drive.state),
                    "free": drive.free,
                    "total": drive.total,
                    "reason": drive.reason,
                    "draining": drive.is_draining,
                    "labels": dict(drive.labels),
                }
                for drive in status.drives
            ],
            "commit": {
                "sequence": commit.sequence,
                "time_ns": commit.time_ns,
                "age_s": max(0.0, (clock.now_ns() - commit.time_ns) / 1e9),
                "failure": commit.failure,
            },
            "weakness": status.weakness,
            "reports": list(status.reports),
            "slow_drives": asdict(status.slowness),
        }

    async def sync(self, call: Call) -> dict[str, Any]:
        """Everything written so far, by whomever, is on the drives when this answers.

        What was refused to a writer who has closed the file since was not written, and the writer knows. When a file that
        is still open was refused something, this raises NoSpaceError or StoreError, after the rest is on the drives.
        """
        refusal = await self._take_over()
        await self._fs.sync()
        if refusal is not None:
            raise refusal
        return {"commit": self._fs.status().commit.sequence}

    async def _take_over(self) -> CiaosError | None:
        """Bring over what the kernel's cache holds; what to tell when that was not possible with all of it."""
        try:
            await self._flush_kernel()
        except OSError as error:
            # The kernel tells of what failed at any time since it was last asked: of files long closed, too.
            code = error.errno or errno.EIO
            if self._fs.has_told_writers(code):
                log.info("sync: the kernel tells of writes refused before (%s)", error.strerror)
                return None
            if code == errno.ENOSPC:
                return NoSpaceError(
                    "The drives are full: some of what was written lately, to files that are still open, was not taken; "
                    "everything else is on the drives. Delete something or add a drive."
                )
            return StoreError(
                f"The kernel could not hand over all that was written lately ({error.strerror}); everything else is on "
                "the drives. 'ciaosfs status' says what is wrong with them."
            )
        return None

    async def stop(self, call: Call) -> dict[str, Any]:
        """Begin to unmount. The lock of the store tells when everything is on the drives."""
        self._stop()
        return {"pid": os.getpid()}
