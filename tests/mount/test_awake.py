"""Keeping processors awake, by a daemon that may."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from ciaosfsd.fuse.awake import DEVICE, IDLE_DRIVER

from ciaosfs.base.config import CONFIG_NAME
from tests.support.mount import MountedStore

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not DEVICE.exists() or not IDLE_DRIVER.exists() or IDLE_DRIVER.read_text() == "none\n",
        reason="this kernel does not let anybody choose how idle processors sleep",
    ),
]


def work(mounted: MountedStore) -> None:
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        path = mounted.path / "file"
        path.touch()
        path.unlink()


def awake_s(mounted: MountedStore) -> float:
    """For how long processors were kept awake, as the log says at the end."""
    mounted.umount()
    said = re.findall(r"unmounted .* awake=([\d.]+)s", (mounted.store / "ciaosfsd.log").read_text())
    mounted.mount()
    return float(said[-1])


def holds_device(mounted: MountedStore) -> bool:
    descriptors = Path("/proc", str(mounted.status()["pid"]), "fd")
    return os.fspath(DEVICE) in {os.readlink(entry) for entry in descriptors.iterdir()}


def test_processors_are_kept_awake_while_requests_come_quickly(mounted: MountedStore) -> None:
    assert holds_device(mounted)
    work(mounted)
    time.sleep(1.0)
    assert 0.1 <= awake_s(mounted) < 1.0


def test_not_when_the_store_says_no(mounted: MountedStore) -> None:
    mounted.umount()
    config = mounted.store / CONFIG_NAME
    text = config.read_text()
    assert "keep_awake = true" in text
    config.write_text(text.replace("keep_awake = true", "keep_awake = false"))
    mounted.mount()
    assert not holds_device(mounted)
    work(mounted)
    assert awake_s(mounted) == 0.0
