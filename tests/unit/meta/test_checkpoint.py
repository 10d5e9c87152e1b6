"""Checkpoints copy what they may, are synced, and keep the write-ahead log bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from ciaosfs.meta import connections
from ciaosfs.meta.connections import database_files
from ciaosfs.meta.inodes import ROOT_INO
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import STORE_ID, add_file, commit, complaints, dump, fresh


def checkpoint(meta: Metadata) -> None:
    running = meta.database.begin_checkpoint()
    running.run()
    running.finish()


def bare_file(path: Path, tmp_path: Path) -> apsw.Connection:
    """The database file without its write-ahead log."""
    copy = tmp_path / "bare"
    copy.write_bytes(path.read_bytes())
    return apsw.Connection(str(copy))


def names_in(connection: apsw.Connection) -> list[str]:
    return sorted(str(row[0]) for row in connection.execute("SELECT name FROM dentries"))


def test_what_is_committed_is_copied(meta: Metadata, tmp_path: Path) -> None:
    add_file(meta, b"f")
    commit(meta)
    assert meta.database.checkpoint_bytes_due > 0
    checkpoint(meta)
    assert meta.database.checkpoint_bytes_due == 0
    assert names_in(bare_file(meta.database.path, tmp_path)) == ["b'f'"]


def test_nothing_committed_after_its_beginning_is_copied(meta: Metadata, tmp_path: Path) -> None:
    """The drives may not have it yet, and after a power cut the database would be ahead of them."""
    add_file(meta, b"synced")
    commit(meta)
    running = meta.database.begin_checkpoint()
    add_file(meta, b"not synced")
    commit(meta)
    thread = threading.Thread(target=running.run)
    thread.start()
    thread.join()
    running.finish()
    assert b"not synced" not in meta.database.path.read_bytes()
    assert meta.database.checkpoint_bytes_due > 0
    checkpoint(meta)
    assert names_in(bare_file(meta.database.path, tmp_path)) == ["b'not synced'", "b'synced'"]


def test_nothing_is_copied_by_anything_else(meta: Metadata, tmp_path: Path) -> None:
    commit(meta)
    checkpoint(meta)
    before = meta.database.path.read_bytes()
    for number in range(200):
        add_file(meta, b"file number %d" % number)
        commit(meta)
    meta.serialize_snapshot(tmp_path / "copy")
    assert meta.quick_check() == []
    assert meta.database.path.read_bytes() == before


def test_a_reader_holds_a_checkpoint_back_without_blocking_anybody(meta: Metadata) -> None:
    commit(meta)
    with meta.reader():
        add_file(meta, b"f")
        commit(meta)
        checkpoint(meta)
        add_file(meta, b"g")
        commit(meta)
        assert meta.database.checkpoint_bytes_due > 0
    checkpoint(meta)
    assert meta.database.checkpoint_bytes_due == 0
    assert complaints(meta) == []


@pytest.mark.parametrize("is_idle_between", [False, True])
def test_the_log_is_bounded_under_a_long_series_of_commits(
    meta: Metadata, monkeypatch: pytest.MonkeyPatch, is_idle_between: bool
) -> None:
    """Always with a change already pending when the checkpoint ends, as in a busy file system; and without."""
    limit = 512 * 1024
    monkeypatch.setattr(connections, "WAL_RESTART_BYTES", limit)
    sizes = []
    written = 0
    for number in range(300):
        for part in range(5):
            add_file(meta, b"file %d of %d" % (part, number))
        commit(meta)
        written += 40_000  # measured: about ten pages of 4 KiB at least
        if not is_idle_between:
            meta.inodes.touch(ROOT_INO, number, number)
        if number % 4 == 3:
            checkpoint(meta)
            meta.database.renew_transaction()
        sizes.append(meta.database.wal_bytes())
    assert written > 10 * limit
    assert max(sizes) < 3 * limit
    if is_idle_between:
        assert max(sizes) < limit, "begun anew after every checkpoint, for nothing"
    assert complaints(meta) == []
    assert meta.inodes.count() == 1 + 300 * 5


def test_a_long_reader_delays_the_restart_only(meta: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 256 * 1024
    monkeypatch.setattr(connections, "WAL_RESTART_BYTES", limit)

    def work(count: int) -> None:
        for _ in range(count):
            add_file(meta, b"n%d" % meta.inodes.count())
            commit(meta)
            checkpoint(meta)
            meta.database.renew_transaction()

    work(1)
    with meta.reader():
        work(100)
        assert meta.database.wal_bytes() > 2 * limit
    work(3)
    assert meta.database.wal_bytes() < limit
    assert complaints(meta) == []


def test_a_database_left_with_a_log_is_checkpointed_after_opening(tmp_path: Path) -> None:
    path = tmp_path / "m"
    meta = fresh(path)
    commit(meta)
    meta.close()
    assert database_files(path)[1].exists()
    meta = Metadata.open(path)
    assert meta.database.checkpoint_bytes_due > 0
    checkpoint(meta)
    assert meta.database.checkpoint_bytes_due == 0
    meta.close()


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Metadata, list[str]]]:
    """A database, and what SQLite asks the operating system to sync."""
    asked: list[str] = []

    class CountingFile(apsw.VFSFile):
        def __init__(self, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
            super().__init__("", name, flags)
            self.label = "log" if flags[0] & apsw.SQLITE_OPEN_WAL else "database"

        def xSync(self, flags: int) -> None:
            asked.append(self.label)
            super().xSync(flags)

    class CountingVFS(apsw.VFS):
        def __init__(self) -> None:
            super().__init__("counting", "")

        def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
            return CountingFile(name, flags)

    vfs = CountingVFS()
    opened = apsw.Connection

    def counting(path: str, **options: int) -> apsw.Connection:
        return opened(path, vfs="counting", **options)

    monkeypatch.setattr(apsw, "Connection", counting)
    meta = fresh(tmp_path / "counted")
    commit(meta)
    asked.clear()
    yield meta, asked
    meta.close()
    vfs.unregister()


def test_a_checkpoint_syncs_the_log_and_then_the_database(synced: tuple[Metadata, list[str]]) -> None:
    meta, asked = synced
    add_file(meta, b"f")
    commit(meta)
    assert asked == [], "a commit syncs nothing"
    checkpoint(meta)
    assert asked == ["log", "database"]
    assert meta.database.renew_transaction()
    meta.database.sync_wal()
    commit(meta)
    assert asked == ["log", "database"], "a log that was emptied and synced needs nothing more"


def test_a_log_that_sqlite_begins_anew_is_synced_by_that_commit(synced: tuple[Metadata, list[str]]) -> None:
    """Else a power cut could leave new frames behind the old header: the end of an old log would count."""
    meta, asked = synced
    for number in range(5):
        add_file(meta, b"f%d" % number)
        commit(meta)
    with meta.reader():
        checkpoint(meta)
        asked.clear()
        assert not meta.database.renew_transaction(), "the reader uses the log"
    add_file(meta, b"g")
    commit(meta)
    assert asked == ["log"]
    add_file(meta, b"h")
    commit(meta)
    assert asked == ["log"]
    assert meta.database.checkpoint_bytes_due == meta.database.checkpoint_bytes_due > 0
    checkpoint(meta)
    assert meta.database.checkpoint_bytes_due == 0
    assert complaints(meta) == []


def test_what_is_pending_moves_behind_the_log_and_is_recorded(meta: Metadata, tmp_path: Path) -> None:
    record = commit(meta)
    checkpoint(meta)
    ino = add_file(meta, b"pending")
    meta.database.weigh(1000)
    pending = meta.changes_pending()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "WAL_RESTART_BYTES", 0)
        assert meta.database.renew_transaction()
    assert meta.database.wal_bytes() == 0
    assert meta.changes_pending() >= pending
    assert meta.dentries.lookup(ROOT_INO, b"pending") == ino
    records = [record, commit(meta)]
    copy = Metadata.create_fresh(tmp_path / "copy", STORE_ID)
    for record in records:
        copy.apply(record.changeset)
        copy.commit()
    assert dump(copy) == dump(meta)
    copy.close()
