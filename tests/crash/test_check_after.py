"""A crash alone is no damage: whatever it leaves, `check` finds nothing wrong, before the next mount and after it."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.drive.workers import Workers
from ciaosfs.offline.check import check_closed
from tests.crash.test_windows import all_moments
from tests.support.builders import files_of


@pytest.mark.parametrize("crash", ["kill", "power cut"])
@pytest.mark.parametrize("seed", [1, 2])
@trio_test
async def test_before_each_operation_on_a_drive(tmp_path: Path, crash: str, seed: int) -> None:
    _, moments = await all_moments(tmp_path, crash, seed)
    async with Workers() as workers:
        for moment in moments:
            findings = await check_closed(moment.store.config, workers, data=True)
            assert findings.problems == [], moment.what
            await files_of(moment.store)
            findings = await check_closed(moment.store.config, workers, data=True)
            assert findings.problems == [], moment.what
            # A volume whose superblock the power cut tore, and none of its needles, stays as it is.
            assert all("damaged superblock" in note for note in findings.notes), moment.what
