"""The log is bounded in rate and in size."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from ciaosfs.base import clock, limits
from ciaosfs.base.log import RateLimit, set_up_file


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    root.handlers.clear()
    yield root
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising


def test_a_burst_passes_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(clock, "monotonic_s", lambda: now)
    limit = RateLimit(burst=2, interval_s=60.0)
    assert [limit.allows("a") for _ in range(4)] == [True, True, False, False]
    assert limit.allows("b")
    assert limit.suppressed == 2
    now = 161.0
    assert limit.allows("a")


def test_the_log_file_is_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root_logger: logging.Logger
) -> None:
    monkeypatch.setattr(limits, "LOG_FILE_BYTES_MAX", 1000)
    path = tmp_path / "daemon.log"
    set_up_file(path)
    for number in range(200):
        root_logger.info("event %d", number)
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert len(names) == limits.LOG_FILES_MAX
    assert sum(entry.stat().st_size for entry in tmp_path.iterdir()) <= 1000 * limits.LOG_FILES_MAX
    assert "event 199" in path.read_text()
