"""The facade: checkpoints when they are due, and what it says about itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from ciaosfs.base.errors import StoreError
from ciaosfs.meta import metadata
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import add_file, commit, make_stripe, raw


class Runs:
    """Stands for worker threads; counts the checkpoints."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, function: Callable[[], None]) -> None:
        self.count += function.__name__ == "run"
        await trio.to_thread.run_sync(function)


def test_a_checkpoint_waits_until_it_is_worth_it(meta: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs()

    async def main() -> None:
        commit(meta)
        await meta.checkpoint_if_due(runs)
        assert runs.count == 0
        await meta.checkpoint_if_due(runs, now=True)
        assert runs.count == 1
        await meta.checkpoint_if_due(runs, now=True)
        assert runs.count == 1, "nothing was left to copy"
        monkeypatch.setattr(metadata, "CHECKPOINT_BYTES", 100_000)
        for number in range(20):
            add_file(meta, b"f%d" % number)
            commit(meta)
            await meta.checkpoint_if_due(runs)
        assert 1 < runs.count < 20
        monkeypatch.setattr(metadata, "CHECKPOINT_BYTES", 1 << 30)
        monkeypatch.setattr(metadata, "CHECKPOINT_INTERVAL_S", 0.0)
        commit(meta)
        count = runs.count
        await meta.checkpoint_if_due(runs)
        assert runs.count == count + 1

    trio.run(main)


def test_a_failed_checkpoint_can_be_tried_again(meta: Metadata) -> None:
    async def fail(function: Callable[[], None]) -> None:
        function()
        raise StoreError("the disk failed")

    async def main() -> None:
        commit(meta)
        with pytest.raises(StoreError):
            await meta.checkpoint_if_due(fail, now=True)
        commit(meta)
        await meta.checkpoint_if_due(Runs(), now=True)
        assert meta.database.checkpoint_bytes_due == 0

    trio.run(main)


def test_an_idle_store_empties_its_log(meta: Metadata) -> None:
    async def main() -> None:
        for number in range(30):
            add_file(meta, b"f%d" % number)
            commit(meta)
        assert meta.database.wal_bytes() > 0
        await meta.checkpoint_if_due(Runs(), now=True)
        assert meta.database.wal_bytes() == 0

    trio.run(main)


def test_statistics(meta: Metadata, tmp_path: Path) -> None:
    ino = add_file(meta, b"f", size=100)
    meta.stripes.insert(make_stripe(1, 5000))
    meta.extents.replace(ino, 0, 100, [raw(0, 100, 1)])
    pending = meta.statistics()
    assert pending.changes_pending > 0
    commit(meta)
    statistics = meta.statistics()
    assert (statistics.files, statistics.directories, statistics.others) == (1, 1, 0)
    assert (statistics.allocated_bytes, statistics.stripes, statistics.payload_bytes) == (100, 1, 5000)
    assert statistics.changes_pending == 0 and statistics.wal_bytes > 0 and statistics.unsaved_commits == 0
