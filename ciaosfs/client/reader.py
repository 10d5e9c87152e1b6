"""An object that is open for reading, as a raw file: `open(key, "rb")` puts Python's own buffer on top of it.

It reads ahead as long as it is read from front to back. When the daemon is restarted in the middle, the object is opened
anew and read on, if it is still the same one.
"""

from __future__ import annotations

import errno
import io
import os

from ciaosfs.base import limits
from ciaosfs.base.errors import FsError
from ciaosfs.base.types import Buffer
from ciaosfs.client.download import Download
from ciaosfs.client.failures import as_python
from ciaosfs.client.hold import Hold
from ciaosfs.client.info import ObjectInfo
from ciaosfs.client.session import Session
from ciaosfs.client.wire import Wire

BUFFER_BYTES = 128 * limits.KIB
"""Of the buffer on top: what a read at a new place costs at least."""


class ObjectReader(io.RawIOBase):
    """`info` is what was opened. Not for two threads at once; not for a forked child."""

    def __init__(self, session: Session, key: str) -> None:
        self._session = session
        self._key = key
        self._pid = os.getpid()
        self._position = 0
        self._streak = 1
        """How many fetches in a row went on where the one before ended; most objects are read from start to end."""
        self._left = memoryview(b"")
        """Bytes from the position on that were fetched and not yet taken."""
        self._download: Download | None = None
        self._hold = Hold(session, self._forget)
        try:
            with as_python(key):
                self.info = self._hold.again(lambda wire: self._opened(wire).info)
        except BaseException:
            self.close()
            raise

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check_open()
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.info.size}.get(whence)
        if start is None or start + offset < 0:
            raise ValueError(f"There is no place {offset} from {whence} in an object.")
        if start + offset != self._position:
            self._position = start + offset
            self._left = memoryview(b"")
            self._streak = 0
        return self._position

    def readinto(self, buffer: Buffer) -> int:  # type: ignore[override]  # the type of a buffer is a private one there
        self._check_open()
        if not self._left and self._position < self.info.size:
            with as_python(self._key):
                self._left = memoryview(self._hold.again(self._fetch))
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._left))
        target[:count] = self._left[:count]
        self._left = self._left[count:]
        self._position += count
        return count

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        self._left = memoryview(b"")
        if self._pid != os.getpid():
            return
        try:
            if self._download is not None:
                self._download.close()
        finally:
            self._hold.let_go()

    def interrupt(self) -> None:
        """From another thread: let what waits for the daemon fail at once; it is of no further use."""
        self._hold.interrupt()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("The object is closed.")
        if self._pid != os.getpid():
            raise OSError(errno.EBADF, "the object was opened before a fork: open it again in the child")

    def _fetch(self, wire: Wire) -> bytes:
        """The bytes at the position, and ask for those after it."""
        download = self._opened(wire)
        if self._position < len(download.first):
            return download.first[self._position :]
        if download.asked and download.asked[0][0] != self._position:
            download.drain()
        window = limits.CLIENT_WINDOW_PIECES if self._streak else 1
        piece = limits.CONTROL_BODY_BYTES_MAX if self._streak else BUFFER_BYTES
        start = sum(download.asked[-1]) if download.asked else self._position
        while start < self.info.size and len(download.asked) < window:
            length = min(piece, self.info.size - start)
            download.ask(start, length)
            start += length
        self._streak += 1
        return download.take()

    def _opened(self, wire: Wire) -> Download:
        if self._download is None:
            download = Download(wire, self._session.full_key(self._key), BUFFER_BYTES)
            download.__enter__()
            known: ObjectInfo | None = getattr(self, "info", None)
            if known is not None and not _is_same(known, download.info):
                download.close()
                raise FsError(errno.ESTALE, f"{self._key!r} was replaced while it was read: read it again.")
            self._download = download
        return self._download

    def _forget(self) -> None:
        self._download = None


def _is_same(one: ObjectInfo, other: ObjectInfo) -> bool:
    return (one.size, one.mtime_ns, one.parts) == (other.size, other.mtime_ns, other.parts)


class BufferedObject(io.BufferedReader):
    """An `ObjectReader` with Python's buffer on top, which makes small reads cheap."""

    def __init__(self, session: Session, key: str) -> None:
        self._reader = ObjectReader(session, key)
        super().__init__(self._reader, BUFFER_BYTES)

    @property
    def info(self) -> ObjectInfo:
        """What was opened."""
        return self._reader.info

    def interrupt(self) -> None:
        """From another thread: let what waits for the daemon fail at once."""
        self._reader.interrupt()
