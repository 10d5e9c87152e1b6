"""System calls on one directory, with results that can be compared with those on another.

A `Caller` carries out the operations that `tests/support/sequences.py` makes up: same names, same data, same
order on each side. What a call answers becomes a plain value; a failure becomes ("error", errno name).
Descriptors live in numbered slots, so that a file can be unlinked, renamed or truncated while open.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
DIRECT_ALIGN = 4096

Outcome = Any
"""A value that compares equal when both sides did the same."""


def renameat2(old: bytes, new: bytes, flags: int) -> None:
    """rename with flags, which Python's os does not have."""
    if LIBC.renameat2(AT_FDCWD, ctypes.c_char_p(old), AT_FDCWD, ctypes.c_char_p(new), ctypes.c_uint(flags)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), old)


def facts(status: os.stat_result) -> tuple[object, ...]:
    """The part of a stat that two file systems agree on."""
    is_directory = stat.S_ISDIR(status.st_mode)
    is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    return (
        oct(status.st_mode),
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        0 if is_directory else status.st_size,
        status.st_rdev if is_device else 0,
    )


def digest(data: bytes) -> object:
    """Data itself while it is short enough to be read in a failure message, else its length and hash."""
    return data if len(data) <= 64 else (len(data), hashlib.blake2b(data, digest_size=8).hexdigest())


class Caller:
    """One side of the comparison: *root* and the descriptors open below it."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self._open: dict[int, int] = {}

    def call(self, name: str, *arguments: Any) -> Outcome:
        """Carry out the operation called *name*; never raises OSError."""
        operation: Callable[..., Outcome] = getattr(self, f"do_{name}")
        try:
            return operation(*arguments)
        except OSError as error:
            return ("error", errno.errorcode.get(error.errno or 0, str(error.errno)))

    def close_all(self) -> None:
        for slot in list(self._open):
            self._drop(slot)

    def _at(self, path: bytes) -> bytes:
        return self.root + b"/" + path

    def _slot(self, slot: int) -> int:
        descriptor = self._open.get(slot)
        if descriptor is None:
            raise OSError(errno.EBADF, "no descriptor in this slot")
        return descriptor

    def _drop(self, slot: int) -> None:
        if slot in self._open:
            os.close(self._open.pop(slot))

    @contextmanager
    def _file(self, path: bytes, flags: int) -> Iterator[int]:
        """Open *path* for one operation, without waiting for the other end when it is a fifo."""
        descriptor = os.open(self._at(path), flags | os.O_NONBLOCK, 0o644)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    # Descriptors

    def do_open(self, slot: int, path: bytes, flags: int, mode: int) -> Outcome:
        with suppress(OSError):
            self._drop(slot)
        self._open[slot] = os.open(self._at(path), flags, mode)
        return facts(os.fstat(self._open[slot]))

    def do_close(self, slot: int) -> Outcome:
        self._slot(slot)
        self._drop(slot)
        return None

    def do_pread(self, slot: int, length: int, offset: int) -> Outcome:
        return digest(os.pread(self._slot(slot), length, offset))

    def do_pwrite(self, slot: int, data: bytes, offset: int) -> Outcome:
        return os.pwrite(self._slot(slot), data, offset)

    def do_read(self, slot: int, length: int) -> Outcome:
        return digest(os.read(self._slot(slot), length))

    def do_write(self, slot: int, data: bytes) -> Outcome:
        written = os.write(self._slot(slot), data)
        return written, os.lseek(self._slot(slot), 0, os.SEEK_CUR)

    def do_seek(self, slot: int, offset: int, whence: int) -> Outcome:
        if whence == os.SEEK_END and stat.S_ISDIR(os.fstat(self._slot(slot)).st_mode):
            return (
                "where a directory ends is for its file system to say"  # the largest hash there is, on ext4
            )
        return os.lseek(self._slot(slot), offset, whence)

    def do_ftruncate(self, slot: int, length: int) -> Outcome:
        os.ftruncate(self._slot(slot), length)
        return os.fstat(self._slot(slot)).st_size

    def do_allocate(self, path: bytes, offset: int, length: int) -> Outcome:
        """Readable and writable: where fallocate is missing, the C library reads and writes to emulate it."""
        with self._file(path, os.O_RDWR) as descriptor:
            os.posix_fallocate(descriptor, offset, length)
            return os.fstat(descriptor).st_size

    def do_fstat(self, slot: int) -> Outcome:
        return facts(os.fstat(self._slot(slot)))

    def do_fchmod(self, slot: int, mode: int) -> Outcome:
        os.fchmod(self._slot(slot), mode)
        return facts(os.fstat(self._slot(slot)))

    def do_fsync(self, slot: int) -> Outcome:
        os.fsync(self._slot(slot))

    def do_fdatasync(self, slot: int) -> Outcome:
        os.fdatasync(self._slot(slot))

    def do_copy_range(self, source: int, target: int, length: int, start: int, end: int) -> Outcome:
        return os.copy_file_range(self._slot(source), self._slot(target), length, start, end)

    def do_sendfile(self, source: int, target: int, length: int, start: int) -> Outcome:
        return os.sendfile(self._slot(target), self._slot(source), start, length)

    # Memory maps and direct I/O

    def do_map_shared(self, slot: int, offset: int, data: bytes) -> Outcome:
        """Write through a shared mapping and read it back by pread, before and after msync."""
        descriptor = self._slot(slot)
        status = os.fstat(descriptor)
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        if size < len(data):
            return "too short to map"
        offset %= size - len(data) + 1
        with mmap.mmap(descriptor, size) as mapping:
            before = digest(mapping[offset : offset + len(data)])
            mapping[offset : offset + len(data)] = data
            seen = os.pread(descriptor, len(data), offset) == data
            mapping.flush()
        return before, seen, os.pread(descriptor, len(data), offset) == data

    def do_map_private(self, slot: int, offset: int, data: bytes) -> Outcome:
        """What is written to a private mapping stays there."""
        descriptor = self._slot(slot)
        status = os.fstat(descriptor)
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        if size < len(data):
            return "too short to map"
        offset %= size - len(data) + 1
        with mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE) as mapping:
            before = digest(mapping[offset : offset + len(data)])
            mapping[offset : offset + len(data)] = data
        return before, digest(os.pread(descriptor, len(data), offset))

    def do_direct_write(self, path: bytes, page: int, data: bytes) -> Outcome:
        """O_DIRECT, from a page-aligned buffer at a page-aligned place."""
        with self._file(path, os.O_RDWR | os.O_DIRECT) as descriptor, mmap.mmap(-1, len(data)) as buffer:
            buffer[:] = data
            return os.pwritev(descriptor, [buffer], page * DIRECT_ALIGN)

    def do_direct_read(self, path: bytes, page: int, pages: int) -> Outcome:
        flags = os.O_RDONLY | os.O_DIRECT
        with self._file(path, flags) as descriptor, mmap.mmap(-1, pages * DIRECT_ALIGN) as buffer:
            return digest(buffer[: os.preadv(descriptor, [buffer], page * DIRECT_ALIGN)])

    # Names

    def do_stat(self, path: bytes) -> Outcome:
        return facts(os.stat(self._at(path)))

    def do_lstat(self, path: bytes) -> Outcome:
        return facts(os.lstat(self._at(path)))

    def do_access(self, path: bytes, mode: int) -> Outcome:
        return os.access(self._at(path), mode)

    def do_read_file(self, path: bytes) -> Outcome:
        with self._file(path, os.O_RDONLY) as descriptor:
            pieces = []
            while piece := os.read(descriptor, 1 << 20):
                pieces.append(piece)
            return digest(b"".join(pieces))

    def do_write_file(self, path: bytes, data: bytes) -> Outcome:
        with self._file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
            return os.write(descriptor, data)

    def do_append_file(self, path: bytes, data: bytes) -> Outcome:
        with self._file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as descriptor:
            return os.write(descriptor, data), os.fstat(descriptor).st_size

    def do_truncate(self, path: bytes, length: int) -> Outcome:
        os.truncate(self._at(path), length)
        return os.stat(self._at(path)).st_size

    def do_unlink(self, path: bytes) -> Outcome:
        os.unlink(self._at(path))

    def do_mkdir(self, path: bytes, mode: int) -> Outcome:
        os.mkdir(self._at(path), mode)
        return facts(os.lstat(self._at(path)))

    def do_rmdir(self, path: bytes) -> Outcome:
        os.rmdir(self._at(path))

    def do_list(self, path: bytes) -> Outcome:
        with os.scandir(self._at(path)) as entries:
            return sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)

    def do_rename(self, old: bytes, new: bytes, flags: int) -> Outcome:
        if flags:
            renameat2(self._at(old), self._at(new), flags)
        else:
            os.rename(self._at(old), self._at(new))
        return facts(os.lstat(self._at(new)))

    def do_link(self, old: bytes, new: bytes) -> Outcome:
        os.link(self._at(old), self._at(new), follow_symlinks=False)
        return facts(os.lstat(self._at(new)))

    def do_symlink(self, target: bytes, path: bytes) -> Outcome:
        os.symlink(target, self._at(path))
        return facts(os.lstat(self._at(path)))

    def do_readlink(self, path: bytes) -> Outcome:
        return os.readlink(self._at(path))

    def do_mknod(self, path: bytes, mode: int, device: int) -> Outcome:
        os.mknod(self._at(path), mode, device)
        return facts(os.lstat(self._at(path)))

    # Attributes

    def do_chmod(self, path: bytes, mode: int) -> Outcome:
        os.chmod(self._at(path), mode)
        return facts(os.stat(self._at(path)))

    def do_lchown(self, path: bytes, owner: int, group: int) -> Outcome:
        os.lchown(self._at(path), owner, group)
        return facts(os.lstat(self._at(path)))

    def do_utime(self, path: bytes, atime_ns: int, mtime_ns: int) -> Outcome:
        os.utime(self._at(path), ns=(atime_ns, mtime_ns), follow_symlinks=False)
        status = os.lstat(self._at(path))
        return status.st_atime_ns, status.st_mtime_ns

    def do_setxattr(self, path: bytes, name: bytes, value: bytes, flags: int) -> Outcome:
        os.setxattr(self._at(path), name, value, flags, follow_symlinks=False)

    def do_getxattr(self, path: bytes, name: bytes) -> Outcome:
        return os.getxattr(self._at(path), name, follow_symlinks=False)

    def do_removexattr(self, path: bytes, name: bytes) -> Outcome:
        os.removexattr(self._at(path), name, follow_symlinks=False)

    def do_listxattr(self, path: bytes) -> Outcome:
        names = os.listxattr(self._at(path), follow_symlinks=False)
        return sorted(name for name in names if name.startswith(("user.", "trusted.")))

    def do_statvfs(self, path: bytes) -> Outcome:
        status = os.statvfs(self._at(path))
        assert status.f_bavail <= status.f_bfree <= status.f_blocks
        assert status.f_ffree <= status.f_files or status.f_files == 0
        return status.f_namemax
