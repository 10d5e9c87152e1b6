"""What a thread does on the mount for a caller, as the caller: blocking functions, for `agent.Agent` alone.

`reach` is a descriptor of the directory that nothing leaves; paths are names below it. What a key stands for is
looked at by a descriptor that opens nothing (O_PATH) before it is opened, so that no fifo is waited for and no device
touched. All raise OSError with the errno the kernel gave, or one like it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from ciaosfs.objects.beneath import check_access, open_beneath, rename_new
from ciaosfs.objects.keys import Names

_FOLDER = os.O_PATH | os.O_DIRECTORY


class Wish(StrEnum):
    """What a put may meet: nothing, a file, or either."""

    CREATE = "create"
    REPLACE = "replace"
    PUT = "put"


class Opened(NamedTuple):
    """A regular file, open. Who gets it closes the descriptor, in a thread: closing may wait for this daemon."""

    descriptor: int
    ino: int
    size: int
    mtime_ns: int


class Beginning(NamedTuple):
    """The first bytes of a file. `opened` is as in `Opened`, its descriptor closed again when that is all of it."""

    opened: Opened
    content: bytes

    @property
    def is_whole(self) -> bool:
        return len(self.content) == self.opened.size


class Spot(NamedTuple):
    """Where a name is to be put: the directory's inode, and the file that has the name.

    `is_whole`: every directory of the key is there; otherwise `directory` is the lowest that is.
    """

    directory: int
    former: int | None
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Seen:
    """A descriptor, closed by `close`, of what the first `depth` names of a path lead to."""

    descriptor: int
    depth: int = 0

    def close(self) -> None:
        os.close(self.descriptor)


def open_file(reach: int, path: Names, flags: int) -> Opened:
    """A regular file, at the end of links that stay below `reach`. EISDIR, EINVAL for what is none."""
    with closing(Seen(open_beneath(reach, b"/".join(path), os.O_PATH))) as seen:
        _check_regular(os.fstat(seen.descriptor).st_mode)
        descriptor = os.open(f"/proc/self/fd/{seen.descriptor}", flags | os.O_CLOEXEC | os.O_NOCTTY)
    found = os.fstat(descriptor)
    return Opened(descriptor, found.st_ino, found.st_size, found.st_mtime_ns)


def read_at(descriptor: int, offset: int, length: int) -> bytes:
    """Up to `length` bytes at `offset`; fewer only at the end."""
    first = os.pread(descriptor, length, offset)
    if len(first) == length or not first:
        return first
    pieces = [first]
    got = len(first)
    while got < length and (more := os.pread(descriptor, length - got, offset + got)):
        pieces.append(more)
        got += len(more)
    return b"".join(pieces)


def read_beginning(reach: int, path: Names, length: int) -> Beginning:
    """Up to `length` bytes of what `open_file` opens."""
    opened = open_file(reach, path, os.O_RDONLY)
    try:
        beginning = Beginning(opened, read_at(opened.descriptor, 0, min(length, opened.size)))
    except BaseException:
        os.close(opened.descriptor)
        raise
    if beginning.is_whole:
        os.close(opened.descriptor)
    return beginning


def look_again(opened: Opened) -> Opened:
    """The same file as it is now."""
    found = os.fstat(opened.descriptor)
    return opened._replace(size=found.st_size, mtime_ns=found.st_mtime_ns)


def find_spot(reach: int, path: Names, wish: Wish, uid: int, folder_mode: int | None = None) -> Spot:
    """Where the last name of `path` may be put by `uid`, whose ids this thread has.

    Directories that are missing are made with `folder_mode`; None: not yet, and `Spot.is_whole` tells. Whoever may
    not put it there is refused with what the kernel would say: EACCES, EROFS, EPERM (sticky), EEXIST, ENOENT, EISDIR.
    """
    names = path[:-1]
    with closing(
        _lowest(reach, names) if folder_mode is None else _make(reach, names, folder_mode)
    ) as lowest:
        folder, depth = lowest.descriptor, lowest.depth
        check_access(folder, os.W_OK | os.X_OK)
        directory = os.fstat(folder)
        if depth < len(names):
            if wish is Wish.REPLACE:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            return Spot(directory.st_ino, None, is_whole=False)
        former = _former(folder, path[-1], wish)
        is_kept = directory.st_mode & stat.S_ISVTX and uid not in (0, directory.st_uid)
        if former is not None and is_kept and former.st_uid != uid:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return Spot(directory.st_ino, None if former is None else former.st_ino)


def remove(reach: int, path: Names) -> None:
    """Remove a name that is no directory's."""
    with closing(Seen(open_beneath(reach, b"/".join(path[:-1]), _FOLDER))) as folder:
        os.unlink(path[-1], dir_fd=folder.descriptor)


def rename(reach: int, old: Names, new: Names, folder_mode: int) -> None:
    """Move a name that is no directory's to one that nothing has."""
    with closing(Seen(open_beneath(reach, b"/".join(old[:-1]), _FOLDER))) as source:
        if stat.S_ISDIR(os.stat(old[-1], dir_fd=source.descriptor, follow_symlinks=False).st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        with closing(_make(reach, new[:-1], folder_mode)) as target:
            rename_new(source.descriptor, old[-1], target.descriptor, new[-1])


def directory_to_list(reach: int, path: Names) -> int:
    """The inode of a directory whose names this thread may read."""
    with closing(Seen(open_beneath(reach, b"/".join(path), _FOLDER))) as folder:
        check_access(folder.descriptor, os.R_OK)
        return os.fstat(folder.descriptor).st_ino


def _lowest(reach: int, names: Names) -> Seen:
    for depth in range(len(names), -1, -1):
        try:
            return Seen(open_beneath(reach, b"/".join(names[:depth]), _FOLDER), depth)
        except FileNotFoundError:
            if depth == 0:
                raise
    raise AssertionError("a path has at least no names")


def _make(reach: int, names: Names, folder_mode: int) -> Seen:
    """All of the directories, those that were missing made."""
    lowest = _lowest(reach, names)
    while lowest.depth < len(names):
        with closing(lowest):
            with suppress(FileExistsError):  # made by another one meanwhile, or a link that leads nowhere
                os.mkdir(names[lowest.depth], folder_mode, dir_fd=lowest.descriptor)
            depth = lowest.depth + 1
            lowest = Seen(open_beneath(reach, b"/".join(names[:depth]), _FOLDER), depth)
    return lowest


def _former(folder: int, name: bytes, wish: Wish) -> os.stat_result | None:
    try:
        former = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        if wish is Wish.REPLACE:
            raise
        return None
    if stat.S_ISDIR(former.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if wish is Wish.CREATE:
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    if stat.S_ISLNK(former.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    _check_regular(former.st_mode)
    return former


def _check_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
