"""Contents on their way to the daemon: a new one of a key, and what is added to one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from types import TracebackType
from typing import Any

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError, DaemonError
from ciaosfs.client.batches import Batch, Source
from ciaosfs.client.download import Progress
from ciaosfs.client.wire import Wire

CREATE, REPLACE, PUT = "create", "replace", "put"
"""What a put may meet under its key: nothing, an object, or either."""


class Put:
    """One try to put a source. `may_have_happened` tells, when it failed, whether it may have been carried out."""

    def __init__(
        self, key: str, source: Source, mode: str, metadata: Mapping[str, str], *, sync: bool
    ) -> None:
        """`mode` is CREATE, REPLACE or PUT."""
        self._target = {"key": key, "mode": mode}
        self._source = source
        self._end: dict[str, Any] = {"metadata": dict(metadata), "sync": sync}
        self.may_have_happened = False

    def send(self, wire: Wire, progress: Progress | None) -> None:
        """Send all of it: what fits into one message at once, more as an `Upload`."""
        batches = self._source.batches()
        first = next(batches)
        second = next(batches, None)
        if second is None:
            arguments = {**self._target, **self._end, **first.arguments}
            arguments.pop("part", None)  # there is nothing before it
            self.may_have_happened = True
            wire.call("object-put", body=first.data, is_patient=self._end["sync"], **arguments)
            if progress is not None:
                progress(len(first.data), len(first.data))
            return
        with Upload(wire, self._target["key"], self._target["mode"]) as upload:
            self._send_all(upload, chain((first, second), batches), progress)
            self.may_have_happened = True
            upload.commit(**self._end)

    def _send_all(self, upload: Upload, batches: Iterator[Batch], progress: Progress | None) -> None:
        done = 0
        for batch in batches:
            upload.write(batch)
            done += len(batch.data)
            if progress is not None:
                progress(done, max(done, self._source.total))
        upload.settle()


class Upload:
    """A new content of a key. A context manager on one connection; left without `commit`, it leaves nothing.

    Pieces go out while earlier ones are being answered. Nothing is seen under the key until `commit` was answered.
    """

    def __init__(self, wire: Wire, key: str, mode: str) -> None:
        self._wire = wire
        self._target: dict[str, Any] = {"key": key, "mode": mode}
        self._handle: int | None = None
        self._unanswered = 0

    def __enter__(self) -> Upload:
        self._handle = self._wire.call("object-create", **self._target)["handle"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the daemon forget it, if it can be told; it forgets by itself when the connection ends."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        while self._unanswered and not self._wire.is_broken:
            self._unanswered -= 1
            with suppress(CiaosError):  # what went wrong first is being raised
                self._wire.receive()
        if not self._wire.is_broken:
            with suppress(DaemonError):
                self._wire.call("close", handle=handle)

    def write(self, batch: Batch) -> None:
        """Send it. Raises what went wrong with it, or with any before."""
        self._wait(limits.CLIENT_WINDOW_PIECES - 1)
        self._wire.send("object-write", body=batch.data, handle=self._handle, **batch.arguments)
        self._unanswered += 1

    def settle(self) -> None:
        """Wait until everything that was sent is answered; raises as `write`."""
        self._wait(0)

    def commit(self, metadata: Mapping[str, str], *, sync: bool) -> None:
        """Make it the content of the key, in one step. Whatever comes of it, the upload is over."""
        self._wait(0)
        handle, self._handle = self._handle, None
        self._wire.call("object-commit", is_patient=sync, handle=handle, metadata=dict(metadata), sync=sync)

    def _wait(self, unanswered: int) -> None:
        while self._unanswered > unanswered:
            self._unanswered -= 1
            self._wire.receive()


class Addition:
    """What is added after the content of a key, each piece in one step. Used as `Upload`; what was written stays."""

    def __init__(self, wire: Wire, key: str) -> None:
        self._wire = wire
        self._key = key

    def __enter__(self) -> Addition:
        self._append(Batch(b""), parts=[])  # is it there, and may it be written?
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing is left to be told."""

    def write(self, batch: Batch) -> None:
        """Add it."""
        self._append(batch)

    def commit(self, metadata: Mapping[str, str], *, sync: bool) -> None:
        """With `sync`, return when all of it is on the drives."""
        if sync:
            self._append(Batch(b""), parts=[], sync=True)

    def _append(self, batch: Batch, *, sync: bool = False, **arguments: Any) -> None:
        append_batch(self._wire, key=self._key, batch=batch, sync=sync, **arguments)


def append_batch(wire: Wire, *, key: str, batch: Batch, sync: bool, **arguments: Any) -> None:
    """Add it, in one step; the arguments are those of the batch, unless others are given."""
    given = arguments or batch.arguments
    wire.call("object-append", body=batch.data, is_patient=sync, key=key, sync=sync, **given)
