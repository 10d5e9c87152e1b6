"""How the daemon and the commands log: events, not prose; bounded in size on disk and in rate.

Library code takes `logging.getLogger(__name__)` and nothing else. Only the two mains call `set_up_*`.
"""

from __future__ import annotations

import logging
import os
import sys
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from ciaosfs.base import clock, limits

LOG_NAME = "ciaosfsd.log"
"""Of the daemon, in the directory of its store."""
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _OwningStderr(RotatingFileHandler):
    """Whatever else writes to stderr (C libraries, a dying interpreter) lands in the current log file."""

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        os.dup2(stream.fileno(), 2)
        return stream


def set_up_file(path: Path, level: int = logging.INFO, *, with_stderr: bool = False) -> None:
    """Log to `path`, which is rotated at LOG_FILE_BYTES_MAX; LOG_FILES_MAX files are kept in all.

    `with_stderr` redirects file descriptor 2 there, too.
    """
    kind = _OwningStderr if with_stderr else RotatingFileHandler
    backups = limits.LOG_FILES_MAX - 1
    _install(kind(path, maxBytes=limits.LOG_FILE_BYTES_MAX, backupCount=backups, encoding="utf-8"), level)


def set_up_terminal(level: int = logging.INFO) -> None:
    """Log to stderr."""
    _install(logging.StreamHandler(sys.stderr), level)


def set_up_silence() -> None:
    """Log nothing: for a command that says itself what is wrong."""
    _install(logging.NullHandler(), logging.CRITICAL)


def _install(handler: logging.Handler, level: int) -> None:
    handler.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    # A lost log line is no reason to write a traceback to a stderr that nobody reads.
    logging.raiseExceptions = False


class RateLimit:
    """Lets `burst` events of one key through per `interval_s`; the others are counted in `suppressed`.

    The number of keys is expected to be small and fixed (names of handlers, kinds of damage).
    """

    def __init__(self, burst: int, interval_s: float) -> None:
        self._burst = burst
        self._interval_s = interval_s
        self._windows: dict[str, tuple[float, int]] = {}
        self.suppressed = 0

    def allows(self, key: str) -> bool:
        """Whether this event should be logged; counts it either way."""
        now = clock.monotonic_s()
        start, count = self._windows.get(key, (now, 0))
        if now - start >= self._interval_s:
            start, count = now, 0
        self._windows[key] = (start, count + 1)
        if count < self._burst:
            return True
        self.suppressed += 1
        return False
