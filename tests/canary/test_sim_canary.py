"""Builds that are broken on purpose: the simulator must catch each within a few seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ciaosfs.fs.commit import Committer, _Round
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.jobs.repair import RepairJob
from ciaosfs.meta.volumes import Volumes
from ciaosfs.stripe.durability import Durability
from ciaosfs.volume.volume import Volume
from tests.model.machine import Steps
from tests.sim.faults import EAGER, PLAIN
from tests.sim.life import LIVES, run

SEEDS = 100
FIRST = 500_000

Break = Callable[[pytest.MonkeyPatch], None]


def a_sync_is_left_out(patch: pytest.MonkeyPatch) -> None:
    """One volume of each commit's, the first."""
    sync_volumes = Durability._sync_volumes

    async def some(self: Durability, volumes: list[Volume]) -> list[Volume]:
        return await sync_volumes(self, volumes[1:])

    patch.setattr(Durability, "_sync_volumes", some)


def a_checksum_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("ciaosfs.volume.reader.verify_blocks", lambda *arguments: None)


def a_commit_is_answered_before_its_sync(patch: pytest.MonkeyPatch) -> None:
    """Those who wait are told when the needle is written."""
    rounds: list[_Round] = []

    class Remembered(_Round):
        def __init__(self) -> None:
            super().__init__()
            rounds.append(self)

    cut = Committer._cut

    async def cut_and_answer(self: Committer) -> tuple[int, int]:
        waiting = rounds[-2]  # the last one is of those who ask from here on
        done = await cut(self)
        waiting.done.set()
        return done

    patch.setattr("ciaosfs.fs.commit._Round", Remembered)
    patch.setattr(Committer, "_cut", cut_and_answer)


def a_stripe_is_given_back_before_its_commit(patch: pytest.MonkeyPatch) -> None:
    """What is dead in the open transaction is punched with the next change of the tree."""
    enter = FileSystem._enter

    async def enter_and_give_back(self: FileSystem) -> None:
        await enter(self)
        self._reclaimer.committed()
        self._reclaimer.synced()

    patch.setattr(FileSystem, "_enter", enter_and_give_back)


def torn_stripes_stay(patch: pytest.MonkeyPatch) -> None:
    async def none(*arguments: object) -> list[int]:
        return []

    patch.setattr("ciaosfs.fs.recovery._torn", none)


def the_database_runs_ahead(patch: pytest.MonkeyPatch) -> None:
    """Checkpoints are begun before the sync of the commits that they copy."""
    cut = Committer._cut

    async def cut_and_copy(self: Committer) -> tuple[int, int]:
        done = await cut(self)
        running = self._meta.database.begin_checkpoint()
        running.run()
        running.finish()
        return done

    patch.setattr(Committer, "_cut", cut_and_copy)


def repair_believes_a_bad_shard(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RepairJob, "_is_damaged", lambda self, place, finding: False)


def a_drive_is_let_go_before_it_is_empty(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Volumes, "is_drive_used", lambda self, number: False)


@pytest.mark.parametrize(
    ("broken", "table", "first"),
    [
        (a_sync_is_left_out, PLAIN, FIRST),
        (a_checksum_is_not_looked_at, PLAIN, FIRST),
        (a_commit_is_answered_before_its_sync, PLAIN, FIRST),
        (a_stripe_is_given_back_before_its_commit, PLAIN, 501_070),
        (torn_stripes_stay, PLAIN, FIRST),
        (the_database_runs_ahead, PLAIN, FIRST),
        (repair_believes_a_bad_shard, EAGER, FIRST),
        (a_drive_is_let_go_before_it_is_empty, EAGER, 500_020),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_the_simulator_catches(
    broken: Break, table: Steps, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first seed saves time: not every run meets what some of these break."""
    broken(monkeypatch)
    for seed in range(first, first + SEEDS):
        place = tmp_path / str(seed)
        place.mkdir()
        try:
            run(place, seed, LIVES, table)
        except Exception:  # noqa: BLE001 - whatever tells is welcome here
            return
    pytest.fail(f"{SEEDS} runs did not see it")


@pytest.mark.parametrize("table", [PLAIN, EAGER], ids=["plain", "eager"])
def test_the_same_seeds_find_nothing_in_what_is_not_broken(table: Steps, tmp_path: Path) -> None:
    """Else the canaries would prove nothing."""
    for seed in range(FIRST, FIRST + SEEDS // 8):
        place = tmp_path / str(seed)
        place.mkdir()
        run(place, seed, LIVES, table)
