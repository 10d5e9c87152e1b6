"""One volume file in a local directory; see `interface.DriveFile` for what its methods promise."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from ciaosfs.base.limits import KIB
from ciaosfs.base.types import Buffer
from ciaosfs.drive.syscalls import punch_hole, reserve_room

_PAGE_BYTES = 4 * KIB
_VECTOR_MAX = 1024
"""IOV_MAX of Linux: pwritev(2) refuses more buffers at once."""


class LocalFile:
    """A volume file over a descriptor it owns."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._nowait_works = True
        self._sync_error: OSError | None = None

    def read(self, offset: int, length: int) -> bytes | bytearray:
        data = os.pread(self._descriptor, length, offset)
        if len(data) == length:
            return data
        # The end of the file, or (a signal, more than 2 GiB) a read cut short: only an empty answer is the
        # end.
        whole = bytearray(data)
        while len(whole) < length and data:
            data = os.pread(self._descriptor, length - len(whole), offset + len(whole))
            whole += data
        return whole

    def read_nowait(self, offset: int, length: int) -> bytearray | None:
        if not self._nowait_works:
            return None
        data = bytearray(length)
        try:
            count = os.preadv(self._descriptor, [data], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self._nowait_works = False  # tmpfs and some network file systems: asking again would only cost
            return None
        if count == length:
            return data
        if offset + count < self.size():
            return None
        del data[count:]
        return data

    def read_into(self, offset: int, into: memoryview) -> int | None:
        if self._descriptor < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        # Opened for each read: that is 1 % of reading 1 MiB, and descriptors are scarce.
        try:
            direct = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError as error:
            # The file system cannot, or there is no /proc, or it may not be used.
            if error.errno in (errno.EINVAL, errno.ENOENT, errno.EACCES, errno.EPERM):
                return None
            raise
        try:
            count = 0
            while count < len(into) and (more := os.preadv(direct, [into[count:]], offset + count)):
                count += more
                if more % _PAGE_BYTES:
                    break  # the end of the file
            return count
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None
            raise
        finally:
            os.close(direct)

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        if len(buffers) <= _VECTOR_MAX:
            total = sum(map(len, buffers))
            if os.pwritev(self._descriptor, buffers, offset) == total:
                return
        self._write_slowly(offset, buffers)

    def _write_slowly(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write in as many calls as it takes: after a short write, or for very many buffers."""
        rest = [view for buffer in buffers if len(view := memoryview(buffer).cast("B"))]
        rest.reverse()  # the next one is last, so that taking it is cheap
        while rest:
            written = os.pwritev(self._descriptor, rest[: -_VECTOR_MAX - 1 : -1], offset)
            if written == 0:
                raise OSError(errno.EIO, "the device takes no bytes and gives no reason")
            offset += written
            while written:
                view = rest.pop()
                if written < len(view):
                    rest.append(view[written:])
                    break
                written -= len(view)

    def sync(self) -> None:
        if self._descriptor < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))  # Python would call it a ValueError
        if self._sync_error is not None:
            raise OSError(self._sync_error.errno, f"an earlier sync failed: {self._sync_error.strerror}")
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._sync_error = error
            raise

    def punch(self, offset: int, length: int) -> None:
        # Inwards: a page half of which belongs to a neighbour is not ours to give back.
        start = -(-offset // _PAGE_BYTES) * _PAGE_BYTES
        end = (offset + length) // _PAGE_BYTES * _PAGE_BYTES
        if start < end:
            punch_hole(self._descriptor, start, end - start)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def advise(self, offset: int, length: int) -> None:
        os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_WILLNEED)

    def write_behind(self, offset: int, length: int) -> None:
        # Linux starts writeback of what is dirty in the range, without waiting, and drops what is clean.
        os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_DONTNEED)

    def preallocate(self, length: int) -> None:
        if length > 0:
            reserve_room(self._descriptor, 0, length)

    def trim(self) -> None:
        # A truncation to the present length frees the blocks behind it; punching a hole there does not on
        # ext4.
        os.ftruncate(self._descriptor, self.size())

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
