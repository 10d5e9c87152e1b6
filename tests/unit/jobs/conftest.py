"""Virtual time: it jumps ahead whenever every task waits."""

from __future__ import annotations

import pytest
from trio.testing import MockClock


@pytest.fixture
def autojump_clock() -> MockClock:
    """For `trio_test`, which finds it among the arguments."""
    return MockClock(autojump_threshold=0)
