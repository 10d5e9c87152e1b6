"""What `ciaosfs check` says of stores that are not mounted."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
import trio

from ciaosfs.cli.progress import progress_line
from ciaosfs.client import storelock
from ciaosfs.client.storelock import Ending
from tests.cli.conftest import Ciaosfs
from tests.support.builders import Store, put


def test_a_sound_store(ciaosfs: Ciaosfs, tmp_path: Path) -> None:
    store = tmp_path / "store"
    ciaosfs("mkfs", store)
    outcome = ciaosfs("check", store)
    assert (outcome.status, outcome.out, outcome.err) == (0, f"Store {store} is consistent.\n", "")
    fields = json.loads(ciaosfs("check", store, "--data", "--json").out)
    assert fields == {"type": "check", "store": str(store), "data": True, "problems": 0}


@pytest.mark.parametrize(
    ("ending", "shown", "examined"),
    [
        (Ending(0), "no, unmounted cleanly", "It ended with everything on the drives."),
        (Ending(3, "No drives."), "no; the last mount ended: No drives.", "It ended badly: No drives."),
    ],
)
def test_a_check_does_not_hide_how_the_last_mount_ended(
    ciaosfs: Ciaosfs, tmp_path: Path, ending: Ending, shown: str, examined: str
) -> None:
    store = tmp_path / "store"
    ciaosfs("mkfs", store)
    with storelock.hold(store) as lock:
        lock.end(ending)
    assert ciaosfs("check", store).status == 0
    assert shown in ciaosfs("status", store).out
    assert examined in ciaosfs("doctor", store).out


def test_what_is_wrong_is_a_sentence_and_status_7(ciaosfs: Ciaosfs, tmp_path: Path) -> None:
    store = tmp_path / "store"
    ciaosfs("mkfs", store)
    (store / "meta" / "meta.sqlite").write_bytes(b"garbage" * 1000)
    outcome = ciaosfs("check", store)
    assert outcome.status == 7
    assert outcome.err == ""
    first, last = outcome.out.splitlines()
    database = store / "meta" / "meta.sqlite"
    assert first == (
        f"The metadata database {database} is damaged: file is not a database: 'ciaosfs recover' rebuilds it."
    )
    assert last == f"Store {store} has 1 problem."
    problem, _ = [json.loads(line) for line in ciaosfs("check", store, "--json").out.splitlines()]
    assert problem == {"type": "problem", "sentence": first}


def test_of_a_database_that_opens_and_is_damaged_no_rebuild_is_promised_that_a_mount_would_not_make(
    ciaosfs: Ciaosfs, tmp_path: Path
) -> None:
    store = Store.make(tmp_path / "store")

    async def fill() -> None:
        async with store.open() as filesystem:
            for number in range(300):
                await put(filesystem, b"%d" % number, b"content")

    trio.run(fill)
    connection = sqlite3.connect(store.database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with store.database.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2))
    outcome = ciaosfs("check", store.path)
    assert outcome.status == 7
    assert "'ciaosfs recover' rebuilds it." in outcome.out
    assert "Note: With ciaosfs recover: " in outcome.out
    assert "At the next mount" not in outcome.out


def test_progress_has_a_share_a_rate_and_the_time_left() -> None:
    assert progress_line("opening", 0, 0, "", 5.0) == "opening"
    assert progress_line("looking", 10, 0, "shards", 0.1) == "looking: 10 shards"
    assert (
        progress_line("looking", 10, 40, "shards", 2.0)
        == "looking: 25% of 40 shards, at 5 shards/s, 6.0 s left"
    )
    assert progress_line("reading", 1 << 20, 4 << 20, "bytes", 1.0) == (
        "reading: 25% of 4.00 MiB, at 1.00 MiB/s, 3.0 s left"
    )
    assert progress_line("looking", 40, 40, "shards", 2.0) == "looking: 100% of 40 shards, at 20 shards/s"
