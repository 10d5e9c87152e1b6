"""`ciaosfs sync` on a full store: what was accepted is on the drives, and who was refused something is not passed over."""

from __future__ import annotations

import errno
import os
import random
from contextlib import suppress
from pathlib import Path

import pytest

from ciaosfs.base.errors import NoSpaceError
from tests.support.mount import MountedStore, wait_until
from tests.support.small_disk import small_disk

DISK_MIB = 48
MIB = 1 << 20


def write_too_much(file: int, dice: random.Random) -> None:
    """More than the disk could ever hold, by a program that does not look what becomes of it."""
    with suppress(OSError):
        for _ in range(4 * DISK_MIB):
            os.write(file, dice.randbytes(MIB))


@pytest.mark.root
def test_a_sync_fails_only_as_long_as_a_writer_may_not_know_that_it_was_refused(
    tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    (tmp_path / "drive0").mkdir()
    (tmp_path / "drive1").mkdir()
    arguments = ["--data", "2", "--parity", "1"]
    for number in range(3):
        arguments += ["--drive", str(tmp_path / f"drive{number}" / "ciaos")]
    with (
        small_disk(tmp_path / "drive2", DISK_MIB),
        MountedStore(tmp_path / "ciaosfs", arguments) as store,
    ):
        (store.path / "before").write_bytes(b"written before it was full")
        file = os.open(store.path / "fill", os.O_CREAT | os.O_WRONLY, 0o600)
        write_too_much(file, dice)
        refused = store.run("sync", str(store.path), check=False)
        assert refused.returncode == NoSpaceError.exit_code, refused.stderr
        assert refused.stderr.startswith("ciaosfs: The drives are full: some of what was written lately")
        with pytest.raises(OSError) as told:
            os.fsync(file)
        assert told.value.errno == errno.ENOSPC
        os.close(file)
        file = os.open(store.path / "fill", os.O_WRONLY | os.O_APPEND)
        write_too_much(file, dice)
        with pytest.raises(OSError) as told:
            os.close(file)
        assert told.value.errno == errno.ENOSPC
        wait_until(lambda: store.status()["open_handles"] == 0, "the kernel does not release the file")
        store.sync()
        assert "Traceback" not in store.log()
        store.kill()
        store.mount()
        assert (store.path / "before").read_bytes() == b"written before it was full"
