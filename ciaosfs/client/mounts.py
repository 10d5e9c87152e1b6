"""The kernel's table of mounts, as far as ciaosfs is concerned: which store is mounted where, and unmounting.

What is mounted comes from /proc/self/mountinfo; only `is_dead` asks a mounted file system, which might hang.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from ciaosfs.base.errors import MountError

SUBTYPE = "ciaosfs"
FSTYPE = f"fuse.{SUBTYPE}"
MOUNT_OPTIONS = ("ro", "nosuid", "nodev", "noexec")
"""What a mount may be asked to be, as mount(8) means it; the kernel sees to it."""
MOUNTINFO = Path("/proc/self/mountinfo")
BUSY_S, BUSY_PAUSE_S = 0.5, 0.02
"""So long a mount in use is tried again: the daemon itself opens a folder for a moment when an object is put there."""
LINKS_MAX = 40
"""Of a path, as for the kernel: then it goes in circles."""
_UMOUNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_USER_ID = re.compile(rb"\buser_id=(\d+)")
_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo. `device` is `major:minor`, `source` what the mounter named, `user_id` who that was."""

    mountpoint: Path
    device: str
    fstype: str
    source: str
    user_id: int = 0

    @property
    def device_number(self) -> int:
        """The device as st_dev."""
        major, _, minor = self.device.partition(":")
        return os.makedev(int(major), int(minor))

    @property
    def store(self) -> Path | None:
        """The store's directory when this is a mount of ours."""
        return Path(os.fsdecode(unquote_to_bytes(self.source))) if self.fstype == FSTYPE else None


def source_of(store: Path) -> str:
    """How a store's path is written as the source of its mount: printable ASCII without option separators."""
    return quote(os.fsencode(store), safe="/+@:=~ ")


def parse_mountinfo(content: bytes) -> list[Mount]:
    """The mounts in `content`, in mounting order: of two at one place the later one is seen."""
    mounts = []
    for line in content.splitlines():
        before, separator, after = line.partition(b" - ")
        fields, rest = before.split(b" "), after.split(b" ")
        if not separator or len(fields) < 6 or len(rest) < 2:
            continue
        place, fstype, source = (os.fsdecode(_unescape(part)) for part in (fields[4], rest[0], rest[1]))
        user_id = _USER_ID.search(after)
        mounts.append(
            Mount(Path(place), fields[2].decode(), fstype, source, int(user_id[1]) if user_id else 0)
        )
    return mounts


def _unescape(field: bytes) -> bytes:
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), field)


def mount_at(mountpoint: Path) -> Mount | None:
    """What is mounted exactly at the absolute, resolved path `mountpoint`."""
    found = [mount for mount in parse_mountinfo(MOUNTINFO.read_bytes()) if mount.mountpoint == mountpoint]
    return found[-1] if found else None


def mount_of_store(store: Path) -> Mount | None:
    """Where the store at `store` is mounted."""
    found = [mount for mount in parse_mountinfo(MOUNTINFO.read_bytes()) if mount.store == store]
    return found[-1] if found else None


def mounts_of_user(uid: int | None = None) -> list[Mount]:
    """The stores that user `uid`, by default the calling one, has mounted."""
    if uid is None:
        uid = os.geteuid()
    everything = parse_mountinfo(MOUNTINFO.read_bytes())
    return [mount for mount in everything if mount.store is not None and mount.user_id == uid]


def resolve_mountpoint(path: Path) -> Path:
    """`path` absolute and without symbolic links, without a look at what is mounted there (it may be dead, or hang).

    A mount point is never a link, and the last name of what lies in a mount of ours need not be followed to know whose
    it is. Where a name cannot be looked at, it stays as it is.
    """
    table = parse_mountinfo(MOUNTINFO.read_bytes())
    places = {mount.mountpoint for mount in table}
    ours = {mount.mountpoint for mount in table if mount.store is not None}
    resolved = Path("/")
    names = list(reversed(Path(os.path.abspath(path)).parts[1:]))  # noqa: PTH100 - resolve() would ask what is mounted
    links = 0
    while names:
        name = names.pop()
        if name == "..":  # of a link
            resolved = resolved.parent
            continue
        place = resolved / name
        is_hidden = place in places or (not names and not ours.isdisjoint(place.parents))
        target = "" if is_hidden or links >= LINKS_MAX else _link_target(place)
        if not target:
            resolved = place
            continue
        links += 1
        parts = Path(target).parts
        if Path(target).is_absolute():
            resolved, parts = Path("/"), parts[1:]
        names += reversed(parts)
    return resolved


def _link_target(place: Path) -> str:
    """Where the symbolic link leads; "" for what is none, or cannot be looked at."""
    try:
        return os.fspath(place.readlink())
    except OSError:
        return ""


def unmount(mountpoint: Path) -> None:
    """Unmount, as root by umount(2) and as a user by fusermount3. Blocks while the kernel writes back its cache.

    Raises MountError: errno EBUSY when files there stay in use, EINVAL when nothing is mounted.
    """
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            if os.geteuid() == 0:
                _unmount_as_root(mountpoint, 0)
            else:
                _unmount_as_user(mountpoint, "-u")
        except MountError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE_S)
        else:
            return


def detach(mountpoint: Path) -> None:
    """Take a mount out of the tree whoever still uses it: for one whose daemon is dead. Raises MountError."""
    if os.geteuid() == 0:
        _unmount_as_root(mountpoint, _UMOUNT_DETACH)
    else:
        _unmount_as_user(mountpoint, "-uz")


def is_dead(mountpoint: Path) -> bool:
    """Whether nobody answers for the FUSE mount at `mountpoint`. Waits as long as a daemon lives and is silent."""
    try:
        os.statvfs(mountpoint)  # stat(2) might be answered from the kernel's cache
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def _unmount_as_root(mountpoint: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(mountpoint), _UMOUNT_NOFOLLOW | flags) == 0:
        return
    raise _refusal(mountpoint, ctypes.get_errno(), "")


def _unmount_as_user(mountpoint: Path, option: str) -> None:
    program = shutil.which("fusermount3") or shutil.which("fusermount")
    if program is None:
        raise MountError("fusermount3 is needed to unmount as a user: install the package fuse3.")
    command = [program, option, "--", os.fspath(mountpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        is_busy = "busy" in done.stderr.lower()
        raise _refusal(mountpoint, errno.EBUSY if is_busy else errno.EPERM, done.stderr.strip())


def _refusal(mountpoint: Path, code: int, detail: str) -> MountError:
    if code == errno.EBUSY:
        message = f"{mountpoint} is in use: close the files and leave the directories there ('fuser -vm' lists them)."
    elif code == errno.EINVAL:
        message = f"Nothing is mounted at {mountpoint}: 'ciaosfs status' lists what is."
    else:
        message = f"{mountpoint} cannot be unmounted: {detail or os.strerror(code)}."
    error = MountError(message)
    error.errno = code
    return error
