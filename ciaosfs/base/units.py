"""Sizes and durations as people write and read them."""

from __future__ import annotations

import re

from ciaosfs.base.errors import UsageError

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def format_bytes(count: int) -> str:
    """`count` bytes with three significant digits and a binary unit: `1.50 GiB`, `12.3 KiB`, `0 B`."""
    if count < 0:
        return "-" + format_bytes(-count)
    value, unit = float(count), _BINARY[0]
    for unit in _BINARY:
        if value < 999.5 or unit == _BINARY[-1]:
            break
        value /= 1024
    if unit == "B":
        return f"{count} B"
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def format_duration(seconds: float) -> str:
    """A duration with its two largest units: `3 d 4 h`, `5 min 2 s`, `1.4 s`."""
    if seconds < 60:
        return f"{max(seconds, 0):.1f} s"
    total = round(seconds)
    parts: list[str] = []
    for name, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, total = divmod(total, length)
        if amount or parts:
            parts.append(f"{amount} {name}")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0 ")) or "0 s"


_LENGTHS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(s|m|min|h|d|w)", re.ASCII)


def parse_duration(text: str) -> float:
    """Seconds, from what a person writes: `90s`, `30min`, `12h`, `30d`, `2w`, `1.5h`. UsageError."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is no time: give a number and one of s, min, h, d, w, as in 12h or 30d.")
    return float(found[1]) * _LENGTHS[found[2]]
