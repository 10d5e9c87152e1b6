"""`ciaosfs drive add`, `remove` and `replace` on a real mount that is written and read; at the end nothing is missing."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.mount.test_drives import ABSENT, available, fill, read_back, states
from tests.support.mount import MountedStore, drop_caches, wait_until
from tests.support.small_disk import small_disk
from tests.support.trees import differences


class Load:
    """A thread that writes, reads back, renames and deletes files as long as it is asked to; what it wrote last is kept."""

    def __init__(self, directory: Path, seed: int) -> None:
        directory.mkdir()
        self._directory = directory
        self._dice = random.Random(seed)
        self._ends = threading.Event()
        self.kept: dict[str, bytes] = {}
        self.errors: list[BaseException] = []
        self.rounds = 0

    def run(self) -> None:
        try:
            while not self._ends.is_set():
                self._step()
                self.rounds += 1
        except BaseException as error:  # noqa: BLE001 - shown by the test that waits for it
            self.errors.append(error)

    def stop(self) -> None:
        self._ends.set()

    def _step(self) -> None:
        name = f"file{self._dice.randrange(24)}"
        path = self._directory / name
        if self._dice.random() < 0.5 or name not in self.kept:
            data = self._dice.randbytes(self._dice.choice((100, 30_000, 700_000, 3_000_000)))
            draft = self._directory / "draft"
            with draft.open("wb") as file:
                file.write(data)
                if self._dice.random() < 0.3:
                    os.fsync(file.fileno())
            draft.replace(path)
            self.kept[name] = data
        elif self._dice.random() < 0.7:
            assert path.read_bytes() == self.kept[name], f"{name} is not what was written"
        else:
            path.unlink()
            del self.kept[name]

    def check(self) -> None:
        found = {path.name: path.read_bytes() for path in self._directory.iterdir() if path.name != "draft"}
        assert found == self.kept


@contextmanager
def under_load(store: MountedStore, seed: int) -> Iterator[Load]:
    load = Load(store.path / "load", seed)
    thread = threading.Thread(target=load.run)
    thread.start()
    try:
        yield load
    finally:
        load.stop()
        thread.join()
    assert not load.errors, load.errors
    assert load.rounds > 10


def drives(store: MountedStore) -> dict[int, dict[str, Any]]:
    lines = store.run("drive", "list", str(store.path), "--json").stdout.splitlines()
    return {drive["number"]: drive for drive in map(json.loads, lines)}


def is_whole(store: MountedStore) -> bool:
    return set(store.status()["stripes_by_missing"]) == {"0"}


def test_drives_come_and_go_under_load(mounted: MountedStore, seed: int) -> None:
    mounted.expect_log(ABSENT)
    fill(mounted.path / "tree", seed)
    expected = read_back(mounted)
    with under_load(mounted, seed) as load:
        new = mounted.base / "new"
        said = mounted.run("drive", "add", str(new), str(mounted.path), "--label", "disk=new").stdout
        assert said == f"Drive 6 at {new} is in use.\n"
        wait_until(lambda: drives(mounted)[6]["shards"] > 0, "nothing is written to the new drive")

        removed = mounted.run("drive", "remove", "1", str(mounted.path), "--wait")
        assert "Drive 1 was emptied" in removed.stdout
        assert sorted(drives(mounted)) == [0, 2, 3, 4, 5, 6]
        assert not list(mounted.drives()[1].iterdir())

        lost = mounted.drives()[4]
        shutil.rmtree(lost)
        lost.mkdir()
        replaced = mounted.run("drive", "replace", "4", str(lost), str(mounted.path), "--wait")
        assert "Drive 7 at" in replaced.stdout and "Drive 4 was emptied" in replaced.stdout
        assert set(states(mounted)) == {0, 2, 3, 5, 6, 7}
    assert is_whole(mounted)
    mounted.sync()
    drop_caches(mounted.path)
    load.check()
    assert not differences(
        expected, {name: node for name, node in read_back(mounted).items() if b"load" not in name}
    )
    mounted.run("check", "--data", str(mounted.path))
    mounted.remount()
    assert is_whole(mounted) and set(states(mounted).values()) == {"online"}
    load.check()
    mounted.umount()
    mounted.run("check", "--data", str(mounted.store))


def test_a_killed_daemon_goes_on_with_a_removal(mounted: MountedStore, seed: int) -> None:
    mounted.expect_log(ABSENT)
    fill(mounted.path / "tree", seed)
    mounted.sync()
    expected = read_back(mounted)
    mounted.run("drive", "add", str(mounted.base / "new"), str(mounted.path))
    mounted.run("drive", "remove", "2", str(mounted.path), "--yes")
    mounted.sync()
    mounted.kill()
    mounted.mount()
    wait_until(lambda: 2 not in drives(mounted), "the removal does not go on", 60)
    assert is_whole(mounted)
    assert not differences(expected, read_back(mounted))


@pytest.mark.root
def test_the_space_of_drives_counts_at_once(tmp_path: Path, seed: int) -> None:
    """On disks that nobody else uses: an added one grows the store, and one that the others cannot take over stays."""
    disks = [tmp_path / f"disk{number}" for number in range(5)]
    arguments = [word for disk in disks[:3] for word in ("--drive", str(disk / "ciaos"))]
    with ExitStack() as mounts:
        for disk in disks:
            mounts.enter_context(small_disk(disk, 64))
        store = mounts.enter_context(
            MountedStore(tmp_path / "ciaosfs", [*arguments, "--data", "2", "--parity", "1"])
        )
        assert store.status()["weakness"] is None
        small = available(store)
        store.run("drive", "add", str(disks[3] / "ciaos"), str(store.path))
        grown = available(store)
        assert grown > small * 1.25, (small, grown)
        dice = random.Random(seed)
        files = {f"file{number}": dice.randbytes(4 << 20) for number in range(grown * 9 // 10 >> 22)}
        for name, data in files.items():
            (store.path / name).write_bytes(data)
        store.sync()
        refused = store.run("drive", "remove", "0", str(store.path), check=False)
        assert refused.returncode == 1 and "add a drive first" in refused.stderr, refused.stderr
        assert not any(drive["draining"] for drive in drives(store).values())
        store.run("drive", "replace", "0", str(disks[4] / "ciaos"), str(store.path), "--wait")
        assert sorted(drives(store)) == [1, 2, 3, 4]
        drop_caches(store.path)
        for name, data in files.items():
            assert (store.path / name).read_bytes() == data
        store.run("check", "--data", str(store.path))


def test_what_cannot_be_is_refused_in_one_sentence(mounted: MountedStore, seed: int) -> None:
    mounted.expect_log(ABSENT)
    for arguments, complaint in (
        (["remove", "0"], "Without drive 0 there are 5 drives and a stripe needs 6"),
        (["remove", "17"], "There is no drive 17"),
        (["replace", "0", str(mounted.drives()[1])], "a drive of this store already"),
        (["add", str(mounted.path / "inside")], "lies in the mount of this store"),
        (["add", str(mounted.store)], "the store itself"),
    ):
        done = mounted.run("drive", *arguments, str(mounted.path), check=False)
        assert done.returncode == 2 and complaint in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert sorted(drives(mounted)) == list(range(6))
    assert not any(drive["draining"] for drive in drives(mounted).values())
