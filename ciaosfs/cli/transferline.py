"""How far the transfers of a command are, shown once they take longer than a person likes to wait without a word."""

from __future__ import annotations

from collections.abc import Callable

from ciaosfs.base import clock
from ciaosfs.cli import output
from ciaosfs.cli.progress import progress_line

SHOWN_AFTER_S = 1.0
SHOWN_EVERY_S = 0.1


class TransferLine:
    """One line on stderr, if that is a terminal; nothing when all is over within SHOWN_AFTER_S. A context manager."""

    def __init__(self, total: int = 0, now: Callable[[], float] = clock.monotonic_s) -> None:
        """`total` are the bytes of all transfers together; 0: not known."""
        self._total = total
        self._done = 0
        self._now = now
        self._since = now()
        self._next_s = self._since + SHOWN_AFTER_S
        self._line = output.Line()

    def expect(self, count: int) -> int:
        """So many bytes more are to come; returns `count`."""
        self._total += count
        return count

    def of(self, name: str) -> Callable[[int, int], None]:
        """The progress callback of the next transfer; `name` is what is moved."""
        moved = 0

        def progress(done: int, total: int) -> None:
            nonlocal moved
            self._done += max(0, done - moved)  # one that is tried again begins anew
            moved = max(moved, done)
            now = self._now()
            if now >= self._next_s:
                self._next_s = now + SHOWN_EVERY_S
                elapsed_s = now - self._since
                self._line.show(progress_line(name, self._done, self._total, "bytes", elapsed_s))

        return progress

    def __enter__(self) -> TransferLine:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.clear()
