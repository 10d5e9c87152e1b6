"""What the kernel keeps of names and inodes, and how it is made to forget it.

The kernel believes each answer for a day, so whoever changes the tree on another way than the mount says so here. The
calls block until requests in the same directory, which it holds locked meanwhile, have been answered: they belong
into a thread, never into the loop that answers.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence

import pyfuse3

from ciaosfs.base.log import RateLimit

log = logging.getLogger(__name__)

_UNKNOWN = (errno.ENOENT, errno.ENOTCONN, errno.ENODEV, errno.EBADF)
"""It has nothing of the kind, or there is no mount any more."""
_limit = RateLimit(burst=10, interval_s=60.0)


def forget_name(directory: int, name: bytes, inodes: Sequence[int]) -> list[int]:
    """Blocks. See `objects.kernel.ForgetName`."""
    try:
        pyfuse3.invalidate_entry(pyfuse3.InodeT(directory), pyfuse3.FileNameT(name))
    except OSError as error:
        _note(error, f"name in inode {directory}")
    return [ino for ino in inodes if not _forget_attributes(ino)]


def _forget_attributes(ino: int) -> bool:
    """Whether the kernel knows the inode. Pages of its contents stay: it may have written to them."""
    try:
        pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=True)
    except OSError as error:
        _note(error, f"attributes of inode {ino}")
        return error.errno not in _UNKNOWN
    return True


def _note(error: OSError, what: str) -> None:
    if error.errno not in _UNKNOWN and _limit.allows("invalidate"):
        log.error("the kernel did not forget the %s: %s", what, error)
