"""Full is not broken: on file systems that are really full, commits still fit and space comes back."""

from __future__ import annotations

import logging
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from ciaosfs.base.errors import NoSpaceError
from ciaosfs.base.limits import KIB, MIB
from ciaosfs.base.types import StripeRecord
from ciaosfs.drive.local import open_drive
from tests.support.chunks import Bench, some_bytes

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@pytest.fixture
def small_disks(tmp_path: Path) -> Iterator[Path]:
    """A directory in which `mount` has been called for drive-0 ... drive-3; unmounted afterwards."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mounted = []
    for number in range(4):
        path = tmp_path / f"drive-{number}"
        path.mkdir()
        size = f"size={24 + 4 * number}m"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)], capture_output=True)
        if done.returncode != 0:
            pytest.skip("mounting a tmpfs is not allowed here")
        mounted.append(path)
    try:
        yield tmp_path
    finally:
        for path in mounted:
            subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.parametrize(("data_count", "parity_count", "spare"), [(2, 1, 0), (2, 1, 1), (1, 1, 2)])
@pytest.mark.parametrize("largest", [4 * MIB, 300 * KIB])
@trio_test
async def test_what_is_available_fits_commits_fit_after_it_and_space_comes_back(
    small_disks: Path, data_count: int, parity_count: int, spare: int, largest: int
) -> None:
    dice = random.Random(largest + spare)
    bench = Bench.make(small_disks, data_count, parity_count, spare)
    async with bench.store(open_drive) as chunks:
        stripes: list[tuple[StripeRecord, bytes]] = []
        sequence = 0
        total = chunks.space().available
        assert total > 16 * MIB
        while (available := chunks.space().available) > 0:
            payload = some_bytes(min(available, dice.randrange(1, largest)))
            stripes.append((await chunks.write_stripe([payload]), payload))
            if dice.random() < 0.2:
                sequence += 1
                await chunks.append_commit(sequence, some_bytes(300))
                await chunks.sync()
            if dice.random() < 0.1:
                await chunks.refresh_drives()
        assert sum(len(payload) for _, payload in stripes) > 0.7 * total
        # As long as the drives take anything, it goes on; then it is an error, and nothing breaks.
        with pytest.raises(NoSpaceError):
            while True:
                payload = some_bytes(largest)
                stripes.append((await chunks.write_stripe([payload]), payload))
        for _ in range(200):
            sequence += 1
            await chunks.append_commit(sequence, some_bytes(dice.randrange(100, 1000)))
        await chunks.sync()
        assert len({entry.sequence for entry in chunks.scan_log(0)}) == sequence
        for record, payload in stripes:
            assert record.missing_count == 0
            assert bytes(await chunks.read(record, 0, len(payload))) == payload
        assert bench.damage == []
        kept = stripes[::2]
        await chunks.discard([record for record, _ in stripes[1::2]])
        assert chunks.space().available > 0.2 * total
        payload = some_bytes(largest)
        kept.append((await chunks.write_stripe([payload]), payload))
        await chunks.sync()
    async with bench.store(open_drive) as chunks:
        for record, payload in kept:
            assert bytes(await chunks.read(record, 0, len(payload))) == payload
        await chunks.append_commit(sequence + 1, b"the first of a session, on drives that are nearly full")
        await chunks.sync()


@trio_test
async def test_others_filling_the_drives_is_an_error_too_and_heals(small_disks: Path) -> None:
    """The promise does not hold against others, who write to the same file systems; errors are all that
    happens."""
    bench = Bench.make(small_disks, 2, 1, 1)
    async with bench.store(open_drive) as chunks:
        payload = some_bytes(MIB)
        record = await chunks.write_stripe([payload])
        await chunks.append_commit(1, b"changes")
        ballast = [bench.drives[number].path / "ballast" for number in range(4)]
        for path in ballast:
            await trio.to_thread.run_sync(_fill, path)
        with pytest.raises(NoSpaceError):
            for _ in range(3):
                await chunks.write_stripe([some_bytes(3 * MIB)])
        for sequence in range(2, 50):  # in the room that was reserved
            await chunks.append_commit(sequence, some_bytes(500))
        await chunks.sync()
        assert bytes(await chunks.read(record, 0, len(payload))) == payload
        for path in ballast:
            path.unlink()
        await chunks.refresh_drives()
        assert (await chunks.write_stripe([payload])).missing_count == 0


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 * KIB))
        except OSError:
            pass
