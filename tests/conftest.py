"""What holds for a whole run, however many processes share it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.support.mount import detach_leftovers


def pytest_sessionstart(session: pytest.Session) -> None:
    """Dead mounts of interrupted runs go before the tests."""
    _detach_leftovers(session.config)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Those of this run go after them."""
    _detach_leftovers(session.config)


def _detach_leftovers(config: pytest.Config) -> None:
    # Once for all processes: while others still run, a dead mount may be what a test is about.
    if not hasattr(config, "workerinput"):
        detach_leftovers(Path(tempfile.gettempdir()))
