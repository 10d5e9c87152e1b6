"""Bytes between objects and standard streams or files, piece by piece."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from ciaosfs.base import limits
from ciaosfs.cli.output import writing

PIECE_BYTES = limits.CONTROL_BODY_BYTES_MAX

Progress = Callable[[int, int], None]


class Sink(Protocol):
    """What can be written to."""

    def write(self, data: bytes, /) -> int: ...


def copy_in(out: Sink, progress: Progress) -> int:
    """Standard input, to its end; returns how many bytes it was."""
    return copy(sys.stdin.buffer, out, 0, progress)


def copy_out(source: BinaryIO, total: int, progress: Progress) -> int:
    """To standard output. OutputError when that cannot be written."""
    count = copy(source, _StandardOutput(), total, progress)
    with writing():
        sys.stdout.buffer.flush()
    return count


class _StandardOutput:
    """Whose errors are known from those of what is read."""

    def write(self, data: bytes, /) -> int:
        with writing():
            return sys.stdout.buffer.write(data)


def copy(source: BinaryIO, target: Sink, total: int, progress: Progress) -> int:
    """From one to the other; returns how many bytes it was."""
    done = 0
    while data := source.read(PIECE_BYTES):
        target.write(data)
        done += len(data)
        progress(done, max(done, total))
    return done


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new content for a local file, in its place when the context is left in good order; else nothing is changed."""
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask()
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:200]}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            os.fchmod(file.fileno(), mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
