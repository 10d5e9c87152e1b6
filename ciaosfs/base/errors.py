"""One tree of errors. Each class knows the errno a system call gets and the exit status a command gets.

Four kinds stay distinct: the caller's mistake, damaged data, a sick environment, and our bug (plain
AssertionError, never in this tree). Messages are whole sentences that name the thing and what to do next.
"""

from __future__ import annotations

import errno
import signal


class CiaosError(Exception):
    """Anything ciaosfs reports on purpose. `str(error)` is the sentence a person reads."""

    errno: int = errno.EIO
    exit_code: int = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class FsError(CiaosError):
    """A file operation was refused with a POSIX errno (the caller's mistake, or a rule of the tree)."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message or errno.errorcode.get(code, str(code)))
        self.errno = code


class UsageError(CiaosError):
    """The command or configuration asks for something that cannot be: wrong counts, wrong paths, wrong values."""

    errno = errno.EINVAL
    exit_code = 2


class StoreError(CiaosError):
    """The store cannot be opened or used as it stands: missing, foreign, newer, locked, too few drives."""

    exit_code = 3


class ForeignDriveError(StoreError):
    """The directory is a drive of another store, whose id (16 bytes) is `owner`."""

    def __init__(self, message: str, owner: bytes) -> None:
        super().__init__(message)
        self.owner = owner


class StoreBusyError(StoreError):
    """Another process holds the store."""

    errno = errno.EBUSY
    exit_code = 4


class MountError(CiaosError):
    """The mount point is missing, not empty, already mounted, or the kernel refused."""

    exit_code = 5


class DaemonError(CiaosError):
    """The daemon did not answer, or answered with an error."""

    exit_code = 6


class UnreachableError(DaemonError):
    """The daemon was not reached, or not by the whole request: it has not carried it out."""


class NotNowError(DaemonError):
    """The daemon does not begin this now, the store being unmounted: nothing was done, and it may be tried again."""

    errno = errno.EAGAIN


class LostAnswerError(DaemonError):
    """The daemon went away after it was asked: whether it has carried out the request is not known."""


class DamagedError(CiaosError):
    """Stored bytes fail their checks. Never raised because a drive is away or slow."""

    exit_code = 7


class ShardDamagedError(DamagedError):
    """One shard's needle is torn, flipped, misplaced or foreign; others of its stripe may be good."""


class StripeLostError(DamagedError):
    """More shards of a stripe are lost or damaged than its parity can replace."""


class LogDamagedError(DamagedError):
    """The commit log or the metadata database contradicts itself."""


class DriveGoneError(CiaosError):
    """A drive is absent or stopped answering. The data on it is not damaged as far as is known.

    A command that fails for it says that the store cannot be used as it stands: with too few drives it cannot.
    """

    exit_code = StoreError.exit_code


class DriveHangsError(DriveGoneError):
    """A drive is where it should be and does not answer within the deadline."""


class OutputError(CiaosError):
    """Standard output cannot be written. When whoever read it has had enough, that is no news, and nothing is said."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"Standard output could not be written: {error.strerror}.")
        self.errno = error.errno or errno.EIO
        self.is_unread = error.errno == errno.EPIPE
        if self.is_unread:
            self.exit_code = 128 + signal.SIGPIPE  # as a shell says of a program that died of it


class AccessError(CiaosError):
    """The caller has no token, or none that allows this. Tells which scope is missing, and nothing of what is there."""

    errno = errno.EACCES
    exit_code = 8


class NoSpaceError(CiaosError):
    """The drives cannot take the data and keep what they hold back for deletes and commits."""

    errno = errno.ENOSPC
