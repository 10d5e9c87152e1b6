"""One process at a time has a drive open, however many stores say that it is theirs.

The lock of a store is in its directory, and a copy of that directory names the same drives. So whoever opens a drive to
write to it also holds a flock(2) on the drive's directory, shared by all who have it open in this process: a drive that went
and came back may be open twice. The kernel lets go of it when the process ends, however it does.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading

from ciaosfs.base.errors import StoreBusyError

log = logging.getLogger(__name__)

_LOCKS_PATH = "/proc/locks"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_UNSUPPORTED = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems answer that have no locks, or none for directories (NFS): then the store's own lock has to do."""

_Place = tuple[int, int]
"""Device and inode of a directory."""


class Hold:
    """The lock on one directory, and how often it is held in this process."""

    def __init__(self, place: _Place, descriptor: int) -> None:
        self._place = place
        self._descriptor = descriptor
        self._count = 1

    @classmethod
    def take(cls, root: int, path: str, number: int) -> Hold:
        """Hold the directory open at `root`. Blocking. Raises StoreBusyError when another process does."""
        status = os.fstat(root)
        place = status.st_dev, status.st_ino
        found = cls._again(place)
        if found is not None:
            return found
        # Not in the turn: it may take as long as the drive likes.
        descriptor = os.open(".", _DIRECTORY, dir_fd=root)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            found = cls._again(place)  # another thread was faster
            if found is not None:
                return found
            raise StoreBusyError(
                f"Drive {number} at {path} is in use by {_holder(place)} for a copy of this store's directory: unmount that "
                "store first, and use one of the two only."
            ) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise
            log.debug("drive %d at %s cannot be locked: %s", number, path, error.strerror)
        made = cls(place, descriptor)
        with _turn:
            _holds.setdefault(place, made)
        return made

    @staticmethod
    def _again(place: _Place) -> Hold | None:
        with _turn:
            found = _holds.get(place)
            if found is not None:
                found._count += 1
            return found

    def release(self) -> None:
        """To be called once for each `take`."""
        with _turn:
            self._count -= 1
            if self._count:
                return
            if _holds.get(self._place) is self:
                del _holds[self._place]
        os.close(self._descriptor)


_holds: dict[_Place, Hold] = {}
_turn = threading.Lock()


def _holder(place: _Place) -> str:
    """Who has the lock, as far as the kernel tells."""
    device, inode = place
    end = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    try:
        with open(_LOCKS_PATH, encoding="ascii") as file:
            for line in file:
                fields = line.split()
                if "FLOCK" in fields and end in fields:
                    return f"process {fields[fields.index(end) - 1]}"
    except OSError as error:
        log.debug("%s cannot be read: %s", _LOCKS_PATH, error.strerror)
    return "another process"
