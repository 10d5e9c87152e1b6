"""How far something is, with rate and time left, on one line of a terminal that is written over and over."""

from __future__ import annotations

from collections.abc import Callable

from ciaosfs.base import clock
from ciaosfs.base.units import format_bytes, format_duration
from ciaosfs.cli import output

RATE_AFTER_S = 1.0
"""Before that a rate says nothing."""


def progress_line(stage: str, done: int, total: int, unit: str, elapsed_s: float) -> str:
    """One stage as a person reads it; `elapsed_s` is the age of the stage. A total of 0 is not known."""
    parts = [f"{stage}:"] if unit else [stage]
    if unit and total:
        parts.append(f"{min(1.0, done / total):.0%} of {_amount(total, unit)}")
    elif unit:
        parts.append(_amount(done, unit))
    if unit and done and elapsed_s >= RATE_AFTER_S:
        rate = done / elapsed_s
        parts.append(f"at {_amount(round(rate), unit)}/s")
        if total > done:
            parts.append(f"{format_duration((total - done) / rate)} left")
    return f"{parts[0]} {', '.join(parts[1:])}".rstrip()


def _amount(count: int, unit: str) -> str:
    return format_bytes(count) if unit == "bytes" else f"{count:,} {unit}"


class ProgressLine:
    """Shows stages on stderr, if that is a terminal. A context manager: leaving it clears the line."""

    def __init__(self, now: Callable[[], float] = clock.monotonic_s) -> None:
        self._now = now
        self._stage = ""
        self._since = now()
        self._line = output.Line()

    def show(self, stage: str, done: int, total: int, unit: str) -> None:
        """The stage and how far it is; a new stage starts a new clock."""
        if stage != self._stage:
            self._stage, self._since = stage, self._now()
        self._line.show(progress_line(stage, done, total, unit, self._now() - self._since))

    def clear(self) -> None:
        """Leave an empty line."""
        self._line.clear()

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
