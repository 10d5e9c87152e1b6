"""The model runs must catch a file system that is broken on purpose, within a few seeds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ciaosfs.fs.files import File, Files
from ciaosfs.fs.overlay import Overlay
from ciaosfs.meta.extents import Extents
from ciaosfs.stripe.store import ChunkStore
from tests.model.machine import Machine
from tests.model.steps import TABLE, draw
from tests.support.inline_workers import InlineWorkers, run_the_same_way

SEEDS = range(20)
STEPS = 150

Break = Callable[[pytest.MonkeyPatch], None]


def truncation_leaves_pending_bytes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Overlay, "truncate", lambda self, size: None)


def truncation_leaves_extents(patch: pytest.MonkeyPatch) -> None:
    replace = Extents.replace
    patch.setattr(
        Extents,
        "replace",
        lambda self, ino, start, end, new: replace(self, ino, start, end, new) if new else 0,
    )


def files_are_forgotten_by_number(patch: pytest.MonkeyPatch) -> None:
    """As it once was: the state of a reopened file goes when an old flight of it lands."""

    def settle(self: Files, file: File) -> None:
        if not file.handles and not file.counted and not file.doomed:
            self._files.pop(file.ino, None)
            self._dirty.pop(file.ino, None)

    patch.setattr(Files, "settle", settle)


def syncs_do_nothing(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: ChunkStore) -> None:
        return

    patch.setattr(ChunkStore, "sync", nothing)


@pytest.mark.parametrize(
    "broken",
    [
        truncation_leaves_pending_bytes,
        truncation_leaves_extents,
        files_are_forgotten_by_number,
        syncs_do_nothing,
    ],
)
def test_the_model_catches(broken: Break, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    for seed in SEEDS:
        place = tmp_path / f"{seed}"
        place.mkdir()
        machine = Machine(place, seed, TABLE, partial(InlineWorkers, seed))
        try:
            run_the_same_way(seed, partial(machine.run, draw(seed, STEPS)))
        except Exception:  # noqa: BLE001 - whatever tells is welcome here
            return
    pytest.fail(f"{len(SEEDS)} runs did not see it")
