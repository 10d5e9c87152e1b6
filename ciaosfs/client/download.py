"""The content of a key on its way from the daemon: pieces are asked for ahead of the one that is taken.

What was opened stays what it is while it is read, also when the key gets another content or goes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError, DaemonError
from ciaosfs.client.info import ObjectInfo, info_of
from ciaosfs.client.wire import Wire

Progress = Callable[[int, int], None]
"""(bytes done, bytes in all); called in the thread of the call, after each piece."""


class Download:
    """A context manager on one connection. `info` is what was opened, `first` are its first bytes, which came with it.

    `asked` are the pieces under way: (start, length).
    """

    def __init__(self, wire: Wire, key: str, first_bytes: int = limits.CONTROL_BODY_BYTES_MAX) -> None:
        self._wire = wire
        self._key = key
        self._first_bytes = first_bytes
        self.asked: deque[tuple[int, int]] = deque()

    def __enter__(self) -> Download:
        result = self._wire.call("object-get", key=self._key, length=self._first_bytes)
        self._handle: int | None = result["handle"]
        self.info: ObjectInfo = info_of(self._key, result)
        self.first = self._wire.reply_body
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Tell the daemon, if it can be told; else it knows when the connection ends."""
        self.drain()
        if self._handle is not None and not self._wire.is_broken:
            with suppress(CiaosError):  # it was let go of to unmount: as good as closed
                self._wire.call("close", handle=self._handle)

    def ask(self, start: int, length: int) -> None:
        """Ask for a piece, at most `limits.CONTROL_BODY_BYTES_MAX`, that lies in the object."""
        self._wire.send("object-read", handle=self._handle, offset=start, length=length)
        self.asked.append((start, length))

    def take(self) -> bytes:
        """The oldest piece that was asked for. Raises DaemonError when the object has become shorter."""
        _, length = self.asked.popleft()
        self._wire.receive()
        piece = self._wire.reply_body
        if len(piece) != length:
            raise DaemonError(f"Object {self._key!r} was cut short while it was read: read it again.")
        return piece

    def drain(self) -> None:
        """Take what is under way and forget it."""
        while self.asked and not self._wire.is_broken:
            self.asked.popleft()
            with suppress(CiaosError):
                self._wire.receive()

    def pieces(self) -> Iterator[bytes]:
        """All of it, in order, several pieces under way. Raises as `take`."""
        size = self.info.size
        if self.first:
            yield self.first[:size]
        start = len(self.first)
        while True:
            while start < size and len(self.asked) < limits.CLIENT_WINDOW_PIECES:
                length = min(size - start, limits.CONTROL_BODY_BYTES_MAX)
                self.ask(start, length)
                start += length
            if not self.asked:
                return
            yield self.take()


def receive_all(download: Download, progress: Progress | None) -> list[bytes]:
    """Every blob of what was opened."""
    total = download.info.size

    def pieces() -> Iterator[bytes]:
        done = 0
        for piece in download.pieces():
            yield piece
            done += len(piece)
            if progress is not None:
                progress(done, total)

    return list(carve(pieces(), download.info.parts))


def carve(pieces: Iterator[bytes], sizes: Iterable[int]) -> Iterator[bytes]:
    """The bytes of `pieces` cut anew into blobs of `sizes`, of which the sum is theirs."""
    left = memoryview(b"")
    for size in sizes:
        blob = bytearray()
        while len(blob) < size:
            left = left or memoryview(next(pieces))
            taken = left[: size - len(blob)]
            blob += taken
            left = left[len(taken) :]
        yield bytes(blob)
    assert not left and not any(pieces), "the parts of an object are all of it"
