"""One database in a temporary directory, closed afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import fresh


@pytest.fixture
def meta(tmp_path: Path) -> Iterator[Metadata]:
    opened = fresh(tmp_path / "meta.sqlite")
    yield opened
    opened.close()
