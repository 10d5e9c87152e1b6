"""Messages out of a byte stream: a line that holds one JSON object, and the counted bytes behind it. Pure.

Every line is bounded, so a peer that never sends a newline costs no more memory than that; bytes of a body are handed
on as they come.
"""

from __future__ import annotations

from ciaosfs.base.errors import UsageError


class FrameReader:
    """Collects received bytes and gives them back as lines, without their newline, and as pieces of bodies."""

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._pending = bytearray()
        self._searched = 0

    @property
    def has_pending(self) -> bool:
        """Whether something was received that has not been taken."""
        return bool(self._pending)

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._pending += data

    def next_line(self) -> bytes | None:
        """The next whole line, or None when it has not arrived yet.

        Raises UsageError when the line is longer than allowed; the stream is then of no further use.
        """
        end = self._pending.find(b"\n", self._searched)
        length = len(self._pending) if end < 0 else end
        if length >= self._line_bytes_max:
            raise UsageError(f"A message may have at most {self._line_bytes_max} bytes.")
        if end < 0:
            self._searched = length
            return None
        line = bytes(self._pending[:end])
        self._drop(end + 1)
        return line

    def take(self, length: int) -> bytes:
        """At most `length` bytes of a body, as many as have arrived."""
        piece = bytes(self._pending[:length])
        self._drop(len(piece))
        return piece

    def _drop(self, length: int) -> None:
        del self._pending[:length]
        self._searched = 0
