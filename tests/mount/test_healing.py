"""Damage and absence on a real mount: nobody asks for repair, and at the end everything is whole."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from tests.mount.test_drives import (
    ABSENT,
    bring_back,
    degraded,
    fill,
    flip,
    read_back,
    states,
    take_away,
    volumes,
)
from tests.support.mount import MountedStore, wait_until
from tests.support.trees import differences

HEALED = rf"{ABSENT}|shard|stripe|drive|volume|damaged"


@pytest.fixture
def filled(mounted: MountedStore, seed: int) -> MountedStore:
    """A mounted store with a synced tree in it."""
    fill(mounted.path / "tree", seed)
    mounted.sync()
    return mounted


def scrub(store: MountedStore) -> str:
    """Verify everything now, and wait until what was found is repaired; what the command said."""
    return store.run("scrub", "--now", "--wait", str(store.path)).stdout


def damaged(said: str) -> int:
    """How many shards a scrub found damaged, by its sentence."""
    return int(said.split(" were damaged")[0].rsplit(" ", 1)[1])


def test_a_scrub_repairs_a_live_shard_that_nobody_has_read(filled: MountedStore, seed: int) -> None:
    filled.expect_log(HEALED)
    expected = read_back(filled)
    assert damaged(scrub(filled)) == 0
    for number in (1, 4):
        flip(filled.drives()[number], seed)
    assert damaged(scrub(filled)) > 4
    assert degraded(filled) == 0
    assert damaged(scrub(filled)) == 0
    for number in (0, 2):  # what was damaged is good again: these two are not needed
        take_away(filled.drives()[number])
    filled.remount()
    assert not differences(expected, read_back(filled))
    for number in (0, 2):
        bring_back(filled.drives()[number])


@pytest.mark.parametrize("harm", ["truncated", "removed", "swapped"])
def test_a_scrub_repairs_volumes_that_are_not_what_they_should_be(filled: MountedStore, harm: str) -> None:
    filled.expect_log(HEALED)
    expected = read_back(filled)
    filled.umount()
    one, other = (max(volumes(filled.drives()[n]), key=lambda v: v.stat().st_size) for n in (2, 3))
    if harm == "truncated":
        os.truncate(one, one.stat().st_size // 2)
    elif harm == "removed":
        one.unlink()
    else:
        between = one.with_suffix(".between")
        one.rename(between)
        other.rename(one)
        between.rename(other)
    filled.mount()
    assert damaged(scrub(filled)) > 2
    assert damaged(scrub(filled)) == 0
    assert degraded(filled) == 0
    assert not differences(expected, read_back(filled))


def waiting(mounted: MountedStore) -> list[str]:
    """The kinds of jobs that wait for something."""
    told = mounted.run("job", "list", "--json", str(mounted.path)).stdout
    jobs = [json.loads(line) for line in told.splitlines()]
    return [job["kind"] for job in jobs if job["state"] == "waiting"]


def test_what_was_written_without_a_drive_is_whole_soon_after_it_returns(
    filled: MountedStore, seed: int
) -> None:
    filled.expect_log(HEALED)
    gone = filled.drives()[random.Random(seed).randrange(6)]
    take_away(gone)
    wait_until(lambda: "absent" in states(filled).values(), "status does not see the drive go")
    fill(filled.path / "later", seed + 1)
    filled.sync()
    expected = read_back(filled)
    assert degraded(filled) > 0
    wait_until(lambda: waiting(filled) == ["verify"], "nothing waits for the drive to return")
    bring_back(gone)
    wait_until(lambda: degraded(filled) == 0, "stripes stay degraded after the drive has returned", 60)
    assert damaged(scrub(filled)) == 0
    assert not differences(expected, read_back(filled))


def test_a_drive_that_returns_empty_is_filled_again(filled: MountedStore) -> None:
    """Only its identity is left: every volume is gone."""
    filled.expect_log(HEALED)
    expected = read_back(filled)
    drive = filled.drives()[5]
    take_away(drive)
    wait_until(lambda: "absent" in states(filled).values(), "status does not see the drive go")
    for volume in volumes(drive.with_name(drive.name + ".away")):
        volume.unlink()
    bring_back(drive)

    def is_verified() -> bool:
        lines = filled.run("job", "list", "--all", "--json", str(filled.path)).stdout.splitlines()
        jobs = [json.loads(line) for line in lines]
        return any(job["kind"] == "verify" and job["state"] == "done" for job in jobs)

    wait_until(is_verified, "the drive that returned is not verified", 60)
    scrub(filled)  # waits for the repairs that are under way
    assert damaged(scrub(filled)) == 0
    wait_until(lambda: degraded(filled) == 0, "stripes stay degraded after the drive has returned", 60)
    for number in (0, 1):
        take_away(filled.drives()[number])
    filled.remount()
    assert not differences(expected, read_back(filled))
    for number in (0, 1):
        bring_back(filled.drives()[number])


def test_the_configuration_of_healing_is_read(tmp_path: Path) -> None:
    store = MountedStore(tmp_path / "ciaosfs")
    with store:
        told = json.loads(store.run("scrub", "--json", str(store.path)).stdout)
        assert told["last"] is None and told["due_ns"] == 0
        text = (store.store / "ciaosfs.toml").read_text()
        assert all(name in text for name in ("job_share", "scrub_period_days", "repair_after_s"))
