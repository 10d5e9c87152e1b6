"""Lines out of a byte stream: a message is one JSON object on one line, ended by a newline. Pure.

Every message is bounded, so a peer that never sends a newline costs no more memory than that.
"""

from __future__ import annotations

from ciaosfs.base.errors import UsageError


class LineReader:
    """Collects received bytes and gives them back as lines, without their newline."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._pending = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._pending += data

    def next_line(self) -> bytes | None:
        """The next whole line, or None when it has not arrived yet.

        Raises UsageError when the line is longer than allowed; the stream is then of no further use.
        """
        end = self._pending.find(b"\n", self._searched)
        length = len(self._pending) if end < 0 else end
        if length >= self._bytes_max:
            raise UsageError(f"A message may have at most {self._bytes_max} bytes.")
        if end < 0:
            self._searched = length
            return None
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        self._searched = 0
        return line
