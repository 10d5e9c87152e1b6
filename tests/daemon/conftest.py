"""The daemon over a file system in memory, mounted for one module's tests and always unmounted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ciaosfs.client import mounts
from ciaosfs.offline.mkfs import make_store, plan_store
from tests.support.mount import ROOT, detach, environment

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.mount)
            if not os.access("/dev/fuse", os.R_OK | os.W_OK):
                item.add_marker(pytest.mark.skip(reason="there is no /dev/fuse to be used here"))


@dataclass
class MemoryMount:
    """A running daemon and its mount."""

    store: Path
    path: Path
    process: subprocess.Popen[bytes]
    report: dict[str, Any] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = json.loads(os.getxattr(self.path, "user.test.counts"))
        return counts

    def log(self) -> str:
        return (self.store / "ciaosfsd.log").read_text()

    def unmount(self) -> int:
        """Unmount; returns the daemon's exit status."""
        mounts.unmount(self.path)
        return self.process.wait(10)

    def is_mounted(self) -> bool:
        return mounts.mount_at(self.path) is not None


Starter = Callable[..., MemoryMount]


def start(store: Path, path: Path, faults: str) -> MemoryMount:
    reading, writing = os.pipe()
    command = [sys.executable, str(ROOT / "tests/support/memory_daemon.py"), str(store), str(path)]
    with open(reading, "rb") as report:
        process = subprocess.Popen(
            [*command, "--report-fd", str(writing)],
            pass_fds=[writing],
            env={**environment(), "CIAOSFS_TEST": faults},
        )
        os.close(writing)
        line = report.readline()
    return MemoryMount(store, path, process, json.loads(line) if line else {})


def stop(mount: MemoryMount) -> None:
    if mount.process.poll() is None:
        mount.process.terminate()
        try:
            mount.process.wait(10)
        except subprocess.TimeoutExpired:
            mount.process.kill()
            mount.process.wait()
    if mount.is_mounted():
        detach(mount.path)


@pytest.fixture
def make_mount(tmp_path: Path) -> Iterator[Starter]:
    """Starts daemons: `make_mount(store=..., path=..., faults=...)`; all are stopped afterwards."""
    started: list[MemoryMount] = []

    def make(store: Path | None = None, path: Path | None = None, faults: str = "") -> MemoryMount:
        if store is None:
            store = tmp_path / "store"
            make_store(plan_store(store, [], 1, 0))
        if path is None:
            path = tmp_path / "mount"
            path.mkdir()
        started.append(start(store, path, faults))
        return started[-1]

    yield make
    for mount in started:
        stop(mount)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryMount]:
    """One mount for a module's tests that do each other no harm."""
    base = tmp_path_factory.mktemp("edge")
    make_store(plan_store(base / "store", [], 1, 0))
    (base / "mount").mkdir()
    mount = start(base / "store", base / "mount", "")
    try:
        assert mount.report == {"ready": True, "reports": ["Nothing was lost."]}
        yield mount
    finally:
        stop(mount)
