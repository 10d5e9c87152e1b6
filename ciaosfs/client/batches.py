"""Contents as they are sent: bodies of bounded size, each with what it says about parts. Pure, but for reading files.

Many small blobs share a body; a large one takes several. A source can be read from its beginning any number of times,
so that a put can be tried again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from typing import Any, Protocol

from ciaosfs.base import limits
from ciaosfs.base.types import Buffer

BODY_BYTES = limits.CONTROL_BODY_BYTES_MAX
PARTS = 2000
"""In one body: their sizes are in the line before it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """`data` are whole parts of these `sizes`; or without them a piece of one part, its beginning if `begins_part`."""

    data: Buffer
    sizes: tuple[int, ...] = ()
    begins_part: bool = True

    @property
    def arguments(self) -> dict[str, Any]:
        """What the daemon is told about the parts."""
        return {"parts": list(self.sizes)} if self.sizes else {"part": self.begins_part}


class Source(Protocol):
    """What is to be sent. `total` is its size in bytes as far as that is known."""

    total: int

    def batches(self) -> Iterator[Batch]:
        """All of it, from the beginning, at least one; each may be used until the next but one is taken."""


class BlobSource:
    """A list of blobs in memory, not empty."""

    def __init__(self, views: list[memoryview]) -> None:
        self._views = views
        self.total = sum(map(len, views))

    def batches(self) -> Iterator[Batch]:
        gathered: list[memoryview] = []
        held = 0
        for view in self._views:
            if gathered and (held + len(view) > BODY_BYTES or len(gathered) == PARTS):
                yield _joined(gathered)
                gathered, held = [], 0
            if len(view) > BODY_BYTES:
                for start in range(0, len(view), BODY_BYTES):
                    yield Batch(view[start : start + BODY_BYTES], begins_part=start == 0)
            else:
                gathered.append(view)
                held += len(view)
        if gathered:
            yield _joined(gathered)


def _joined(views: list[memoryview]) -> Batch:
    return Batch(views[0] if len(views) == 1 else b"".join(views), tuple(map(len, views)))


class FileSource:
    """A local file that can be read again; one blob."""

    def __init__(self, file: FileIO, total: int) -> None:
        self._file = file
        self.total = total

    def batches(self) -> Iterator[Batch]:
        self._file.seek(0)
        size = min(max(self.total, 1), BODY_BYTES)
        buffers = [memoryview(bytearray(size)), memoryview(bytearray(size))]
        is_first = True
        while (count := self._file.readinto(buffers[0])) or is_first:
            yield Batch(buffers[0][:count], begins_part=is_first)
            is_first = False
            buffers.reverse()
