"""One thread of the daemon as somebody else, for the file system alone.

Linux keeps credentials per thread. The ids for the file system (setfsuid(2), setfsgid(2)) and the supplementary
groups of one thread are those of the caller while it acts for him; its other ids stay the daemon's, so no signal and
no ptrace of the caller's can touch it. With a file-system uid other than 0 the kernel takes away what lets root pass
permissions by. C libraries set groups in all threads of a process; therefore the system call itself is made. The
umask of such a thread is its own, too, and 0: modes are what the caller asked for.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from typing import NamedTuple

from ciaosfs.base.errors import FsError

_SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "ppc64le": 81, "s390x": 206}
_CLONE_FS = 0x200
_UNCHANGED = ctypes.c_uint32(-1)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Actor(NamedTuple):
    """For whom something is done: his user, group and supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def own_umask() -> None:
    """Give the calling thread a umask of its own, of 0. Raises OSError."""
    if _libc.unshare(_CLONE_FS) != 0:
        _raise_last()
    os.umask(0)


def become(actor: Actor) -> None:
    """Let the calling thread act as `actor` on file systems, until it becomes another. FsError EPERM when it cannot.

    A daemon that is not root's serves its own user alone, and changes nothing.
    """
    if os.geteuid() != 0:
        return
    _set_groups(actor.groups)
    # Both return the former id whatever happens, so that only asking again tells.
    _libc.setfsgid(ctypes.c_uint32(actor.gid))
    _libc.setfsuid(ctypes.c_uint32(actor.uid))
    if _file_system_ids() != (actor.uid, actor.gid):
        raise FsError(errno.EPERM, f"The daemon may not act as user {actor.uid}.")


def _file_system_ids() -> tuple[int, int]:
    uid, gid = _libc.setfsuid(_UNCHANGED), _libc.setfsgid(_UNCHANGED)
    return uid & 0xFFFFFFFF, gid & 0xFFFFFFFF


def _set_groups(groups: tuple[int, ...]) -> None:
    number = _SETGROUPS.get(platform.machine())
    if number is None:
        raise FsError(errno.ENOSYS, f"Acting as another user is not known on {platform.machine()}.")
    given = (ctypes.c_uint32 * len(groups))(*groups)
    if _libc.syscall(ctypes.c_long(number), ctypes.c_long(len(groups)), given) != 0:
        _raise_last()


def _raise_last() -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))
