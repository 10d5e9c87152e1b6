"""An object that is open for writing, as a buffered file.

What is written is one blob. Of a new content nothing is seen until it is closed; left by an exception, or forgotten without
being closed, it leaves nothing. What is added to an object is added as it goes out, piece by piece.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType

from ciaosfs.base import limits
from ciaosfs.base.types import Buffer
from ciaosfs.client.batches import Batch
from ciaosfs.client.cutting import exposed
from ciaosfs.client.failures import as_python
from ciaosfs.client.session import Session
from ciaosfs.client.upload import Addition, Upload
from ciaosfs.client.wire import Wire


class ObjectWriter(io.BufferedIOBase):
    """Not for two threads at once; not for a forked child."""

    def __init__(self, session: Session, key: str, begin: Callable[[Wire], Upload | Addition]) -> None:
        """`begin` makes what takes the pieces."""
        self._session = session
        self._key = key
        self._metadata: Mapping[str, str] = {}
        self._sync = False
        self._pid = os.getpid()
        self._pending = bytearray()
        self._position = 0
        self._has_begun = False
        self._wire = session.borrow()
        self._target = begin(self._wire)
        try:
            with as_python(key), exposed(self._wire):
                self._target.__enter__()
        except BaseException:
            self.abandon()
            raise

    def on_close(self, metadata: Mapping[str, str], *, sync: bool) -> ObjectWriter:
        """What is to be kept with it, and whether closing waits until it is on the drives; returns itself."""
        self._metadata, self._sync = metadata, sync
        return self

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def write(self, data: Buffer) -> int:  # type: ignore[override]  # the type of a buffer is a private one there
        self._check_open()
        view = memoryview(data).cast("B")
        self._position += len(view)
        if self._pending or len(view) < limits.CONTROL_BODY_BYTES_MAX:
            taken = min(len(view), limits.CONTROL_BODY_BYTES_MAX - len(self._pending))
            self._pending += view[:taken]
            if len(self._pending) < limits.CONTROL_BODY_BYTES_MAX:
                return len(view)
            self._send_pending()
            rest = view[taken:]
        else:
            rest = view
        while len(rest) >= limits.CONTROL_BODY_BYTES_MAX:
            self._send(rest[: limits.CONTROL_BODY_BYTES_MAX])
            rest = rest[limits.CONTROL_BODY_BYTES_MAX :]
        self._pending += rest
        return len(view)

    def flush(self) -> None:
        """Nothing: what is written is seen when it is closed."""

    def close(self) -> None:
        """Make what was written the content of the key, in one step. Raises what went wrong; then nothing was put, unless
        the error is LostAnswerError: then it is not known."""
        if self.closed:
            return
        try:
            self._check_open()
            if self._pending:
                self._send_pending()
            with as_python(self._key):
                self._target.commit(self._metadata, sync=self._sync)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close it and put nothing."""
        if self.closed:
            return
        super().close()
        self._pending.clear()
        if self._pid != os.getpid():
            return
        try:
            self._target.__exit__(None, None, None)
        finally:
            self._session.give_back(self._wire)

    def interrupt(self) -> None:
        """From another thread: let what waits for the daemon fail at once; it is of no further use."""
        self._wire.interrupt()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def __del__(self) -> None:
        with suppress(AttributeError):  # of one that was never whole
            self.abandon()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("The object is closed.")
        if self._pid != os.getpid():
            raise OSError(errno.EBADF, "the object was opened before a fork: open it again in the child")

    def _send_pending(self) -> None:
        # A copy: a buffer that is being sent cannot be cleared.
        self._send(bytes(self._pending))
        self._pending.clear()

    def _send(self, data: Buffer) -> None:
        with as_python(self._key):
            self._target.write(Batch(data, begins_part=not self._has_begun))
        self._has_begun = True
