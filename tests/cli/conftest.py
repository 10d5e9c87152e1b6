"""The commands, run in this process, with a daemon over a file system in memory behind `mount`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ciaosfs.cli import cmd_mount
from ciaosfs.cli.main import run
from ciaosfs.client import mounts, storelock
from tests.support.mount import ROOT, detach, environment


@dataclass(frozen=True)
class Outcome:
    """What a command said and its exit status."""

    status: int
    out: str
    err: str


Ciaosfs = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Commands that say themselves what is wrong silence the log of their process, which is this one."""
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    root.handlers[:] = []
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising


@pytest.fixture
def ciaosfs(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Ciaosfs]:
    """Runs `ciaosfs` with the arguments given. What is mounted below `tmp_path` is unmounted afterwards."""

    def daemon_command(store: Path, mountpoint: Path) -> list[str]:
        script = ROOT / "tests/support/memory_daemon.py"
        return [sys.executable, str(script), str(store), str(mountpoint.absolute())]

    monkeypatch.setattr(cmd_mount, "_daemon_command", daemon_command)
    monkeypatch.setattr(cmd_mount, "_environment", environment)

    def call(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        status = run([os.fspath(argument) for argument in arguments])
        said = capfd.readouterr()
        return Outcome(status, said.out, said.err)

    yield call
    for mount in mounts.mounts_of_user():
        if mount.mountpoint.is_relative_to(tmp_path) and mount.store is not None:
            detach(mount.mountpoint)
            storelock.wait_released(mount.store, 10)


@pytest.fixture
def needs_fuse() -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/fuse to be used here")
