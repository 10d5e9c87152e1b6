"""Virtual time, the wall clock's as well, and an authority over a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
import trio
from trio.testing import MockClock

from ciaosfs.access.authority import Authority, open_authority
from ciaosfs.base import clock
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import STORE_ID, commit, complaints

START_NS = 1_800_000_000 * 10**9

Opener: TypeAlias = Callable[[], AbstractAsyncContextManager[Authority]]


@pytest.fixture
def autojump_clock(monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """For `trio_test`, which finds it among the arguments; the wall clock goes with it."""
    made = MockClock(autojump_threshold=0)
    begin_s = made.current_time()
    monkeypatch.setattr(clock, "now_ns", lambda: START_NS + round((made.current_time() - begin_s) * 1e9))
    return made


@pytest.fixture
def meta(tmp_path: Path) -> Iterator[Metadata]:
    """Sound at the end, whatever a test did."""
    opened = Metadata.create_fresh(tmp_path / "meta.sqlite", STORE_ID)
    yield opened
    assert [one for one in complaints(opened) if "root directory" not in one] == []
    opened.close()


@pytest.fixture
def authority_over(meta: Metadata) -> Opener:
    """Opens the authority over `meta`; what is durable is committed."""

    async def enter() -> None:
        await trio.lowlevel.checkpoint()

    async def sync() -> None:
        await trio.lowlevel.checkpoint()
        commit(meta)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Authority]:
        async with open_authority(meta, enter, sync) as authority:
            yield authority

    return opened
