"""What a run says of itself: the product's log, exceptions in groups, and a name for a trace."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class _Tracebacks(logging.Handler):
    """Collects what the product itself calls a bug."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


@contextmanager
def quiet() -> Iterator[_Tracebacks]:
    """The product's log goes nowhere but for tracebacks, while the context lasts."""
    logger = logging.getLogger("ciaosfs")
    handler = _Tracebacks()
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def digest(trace: Sequence[str]) -> str:
    """A short name for a whole trace."""
    return hashlib.blake2b("\n".join(trace).encode(), digest_size=8).hexdigest()
