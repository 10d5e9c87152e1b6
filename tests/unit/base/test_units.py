"""Sizes and durations read well at every magnitude."""

from __future__ import annotations

import pytest

from ciaosfs.base.units import format_bytes, format_duration


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1024, "1.00 KiB"),
        (10 * 1024, "10.0 KiB"),
        (1023 * 1024, "1.00 MiB"),
        (123 << 30, "123 GiB"),
        (5 << 60, "5.00 EiB"),
        (-2048, "-2.00 KiB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (1.44, "1.4 s"),
        (61, "1 min 1 s"),
        (120, "2 min"),
        (3600 * 3 + 59, "3 h"),
        (86400 * 3 + 3600 * 4 + 5, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
