"""What the mount tests share: which of them can run here, a mounted store, the seed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ciaosfs.objects.store import Place
from tests.support.mount import MountedStore
from tests.support.object_mount import ObjectMount

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below this directory needs /dev/fuse; what is marked `root` needs to be root."""
    for item in items:
        if not item.path.is_relative_to(HERE):
            continue
        item.add_marker(pytest.mark.mount)
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            item.add_marker(pytest.mark.skip(reason="there is no /dev/fuse to be used here"))
        elif item.get_closest_marker("root") and os.getuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs to run as root"))


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[MountedStore]:
    """A store of its own for one test."""
    with MountedStore(tmp_path / "ciaosfs") as store:
        yield store


@pytest.fixture(scope="module")
def shared_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountedStore]:
    """One store for all tests of a module; each works in a directory of its own (`workdir`)."""
    with MountedStore(tmp_path_factory.mktemp("shared") / "ciaosfs") as store:
        yield store


@pytest.fixture
def workdir(shared_mount: MountedStore, request: pytest.FixtureRequest) -> Path:
    """An empty directory on the shared mount, named after the test."""
    path = shared_mount.path / "".join(c if c.isalnum() else "-" for c in request.node.name)
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectMount]:
    """A store mounted by this process, for tests that ask its objects; each works in a `place` of its own."""
    with ObjectMount(tmp_path_factory.mktemp("objects")) as mounted:
        yield mounted


@pytest.fixture
def place(mount: ObjectMount, request: pytest.FixtureRequest) -> Place:
    """A folder of the test's own on that mount, where keys begin."""
    return mount.place(request.node.name)


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of this run: CIAOSFS_SEED, or a new one; pytest shows it when a test fails."""
    value = int(os.environ.get("CIAOSFS_SEED") or time.time_ns() % 1_000_000_007)
    print(f"CIAOSFS_SEED={value}")
    return value
