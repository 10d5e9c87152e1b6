"""Opening, transactions, applying, and a disk that does not take what it is given."""

from __future__ import annotations

import logging
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from ciaosfs.base.errors import LogDamagedError, NoSpaceError, StoreBusyError, StoreError
from ciaosfs.meta import connections, database, schema
from ciaosfs.meta.database import Database
from ciaosfs.meta.inodes import ROOT_INO
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import STORE_ID, add_file, commit, complaints, dump, fresh, make_inode


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed database with one commit, wholly in the database file."""
    path = tmp_path / "meta.sqlite"
    meta = fresh(path)
    add_file(meta, b"file")
    commit(meta)
    checkpoint = meta.database.begin_checkpoint()
    checkpoint.run()
    checkpoint.finish()
    meta.close()
    return path


# Opening


def test_what_was_committed_is_there_again(path: Path) -> None:
    meta = Metadata.open(path)
    assert meta.dentries.lookup(ROOT_INO, b"file") is not None
    add_file(meta, b"not committed")
    meta.close()
    meta = Metadata.open(path)
    assert meta.dentries.lookup(ROOT_INO, b"not committed") is None
    meta.close()


def cut_to(path: Path, length: int) -> None:
    with path.open("r+b") as file:
        file.truncate(length)


def scribble(path: Path) -> None:
    """Over everything but the first page, which says what the file is."""
    with path.open("r+b") as file:
        length = file.seek(0, 2)
        file.seek(4096)
        file.write(b"\xa5" * (length - 4096))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(Path.unlink, id="missing"),
        pytest.param(lambda path: cut_to(path, 0), id="empty"),
        pytest.param(lambda path: cut_to(path, 5000), id="cut short"),
        pytest.param(lambda path: path.write_bytes(bytes(8192)), id="zeros"),
        pytest.param(lambda path: path.write_bytes(b"no database" * 999), id="garbage"),
        pytest.param(scribble, id="scribbled"),
    ],
)
def test_a_damaged_database_is_to_be_rebuilt(path: Path, damage: Callable[[Path], None]) -> None:
    for leftover in connections.database_files(path)[1:]:
        leftover.unlink(missing_ok=True)
    damage(path)
    with pytest.raises(LogDamagedError):
        Metadata.open(path)
    Metadata.create_fresh(path, STORE_ID).close()


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("PRAGMA application_id = 7", "not of a ciaosfs store"),
        (f"PRAGMA user_version = {schema.FORMAT + 1}", "newer"),
        ("PRAGMA user_version = 0", "unknown format"),
    ],
)
def test_a_foreign_or_newer_database_is_left_alone(path: Path, statement: str, sentence: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(statement)
    connection.close()
    with pytest.raises(StoreError, match=sentence):
        Metadata.open(path)


def test_a_database_of_an_older_format_is_rebuilt_from_the_drives(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(LogDamagedError, match="older format 1"):
        Metadata.open(path)


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        Metadata.open(tmp_path)


def test_two_writers_are_one_too_many(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_MS", 10)
    meta = Metadata.open(path)
    with pytest.raises(StoreBusyError):
        Metadata.open(path)
    meta.close()


def test_fresh_means_nothing_is_left_of_before(path: Path) -> None:
    meta = Metadata.open(path)
    add_file(meta, b"in the write-ahead log")
    commit(meta)
    meta.close()
    meta = Metadata.create_fresh(path, STORE_ID)
    assert meta.inodes.load(ROOT_INO) is None and meta.state.load().sequence == 0
    meta.close()


def test_closing_copies_nothing(path: Path) -> None:
    """A checkpoint at close would put a commit into the database that the drives may not have."""
    before = path.read_bytes()
    meta = Metadata.open(path)
    add_file(meta, b"g")
    commit(meta)
    meta.close()
    assert path.read_bytes() == before


# Transactions


def test_pending_changes_are_counted(meta: Metadata) -> None:
    commit(meta)
    assert meta.changes_pending() == 0
    assert meta.take_changeset() == b""
    add_file(meta, b"f")
    assert meta.changes_pending() == 2
    meta.take_changeset()
    assert meta.changes_pending() >= 2, "the append may fail, and then they are still pending"
    meta.commit()
    assert meta.changes_pending() == 0


def test_a_changeset_taken_again_has_everything(meta: Metadata, tmp_path: Path) -> None:
    commit(meta)
    add_file(meta, b"f")
    meta.take_changeset()
    add_file(meta, b"g")
    both = meta.take_changeset()
    meta.commit()
    names = [
        change.new[2] for change in apsw.Changeset.iter(both) if change.name == "dentries" and change.new
    ]
    assert sorted(map(str, names)) == ["b'f'", "b'g'"]


def test_changes_behind_the_log_are_our_bug(meta: Metadata) -> None:
    commit(meta)
    add_file(meta, b"f")
    with pytest.raises(AssertionError):
        meta.commit()
    meta.take_changeset()
    add_file(meta, b"g")
    with pytest.raises(AssertionError):
        meta.commit()


def test_readers_see_the_last_commit_and_cannot_write(meta: Metadata) -> None:
    commit(meta)
    with meta.reader() as reader:
        add_file(meta, b"f")
        commit(meta)
        assert list(reader.rows("SELECT name FROM dentries")) == []
        with pytest.raises(apsw.ReadOnlyError):
            list(reader.rows("DELETE FROM inodes"))
    with meta.reader() as reader:
        assert list(reader.rows("SELECT name FROM dentries")) == [(b"f",)]


def test_quick_check_and_snapshot(meta: Metadata, tmp_path: Path) -> None:
    add_file(meta, b"f")
    commit(meta)
    add_file(meta, b"not committed")
    assert meta.quick_check() == []
    meta.serialize_snapshot(tmp_path / "copy")
    with pytest.raises(StoreError):
        meta.serialize_snapshot(tmp_path / "copy")
    copy = Metadata.open(tmp_path / "copy")
    assert dump(copy) == dump(meta)
    assert copy.state.load() == meta.state.load()
    assert complaints(copy) == []
    copy.close()


def test_damage_is_seen_by_quick_check(path: Path) -> None:
    connections.database_files(path)[1].unlink()  # else the pages are read from there
    meta = Metadata.open(path)
    scribble(path)
    assert meta.quick_check() != []
    with pytest.raises(LogDamagedError):
        dump(meta)
    meta.close()


# Applying


def test_applying_twice_is_a_conflict_with_a_name(meta: Metadata, tmp_path: Path) -> None:
    add_file(meta, b"f")
    changeset = commit(meta).changeset
    copy = Metadata.create_fresh(tmp_path / "copy", STORE_ID)
    copy.apply(changeset)
    copy.commit()
    before = dump(copy)
    with pytest.raises(LogDamagedError, match=r"in table \w+ meets"):
        copy.apply(changeset)
    copy.rollback()
    assert dump(copy) == before
    copy.close()


def test_a_commit_on_another_past_is_a_conflict(meta: Metadata, tmp_path: Path) -> None:
    first = commit(meta).changeset
    meta.inodes.touch(ROOT_INO, 5, 5)
    commit(meta)
    meta.inodes.touch(ROOT_INO, 6, 6)
    third = commit(meta).changeset
    copy = Metadata.create_fresh(tmp_path / "copy", STORE_ID)
    copy.apply(first)
    copy.commit()
    with pytest.raises(LogDamagedError, match="UPDATE in table"):
        copy.apply(third)
    copy.close()


def test_garbage_is_no_changeset(meta: Metadata) -> None:
    commit(meta)
    with pytest.raises(LogDamagedError):
        meta.apply(b"garbage")


def test_a_table_we_do_not_have_is_not_passed_over(meta: Metadata, tmp_path: Path) -> None:
    """SQLite itself skips tables it does not know."""
    commit(meta)
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE later(id INTEGER PRIMARY KEY)")
    session = apsw.Session(connection, "main")
    session.attach()
    connection.execute("INSERT INTO later VALUES (1)")
    with pytest.raises(LogDamagedError, match="later"):
        meta.apply(session.changeset())


def test_applying_over_changes_of_ones_own_is_our_bug(meta: Metadata) -> None:
    commit(meta)
    add_file(meta, b"f")
    with pytest.raises(AssertionError):
        meta.apply(b"")


# A disk that is full


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Files cannot grow: what SQLite meets is a write error, as with a full file system."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    wal = connections.database_files(path)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(wal.stat().st_size, path.stat().st_size), limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_commits_that_sqlite_cannot_write_are_kept(
    meta: Metadata, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has them, so nobody hears of it but the operator, and a copy made from the log agrees all the
    time.
    """
    copy = Metadata.create_fresh(tmp_path / "copy", STORE_ID)
    records = [commit(meta)]
    before = dump(meta)
    with full_disk(meta.database.path), caplog.at_level(logging.ERROR):
        for number in range(3):
            add_file(meta, b"f%d" % number)
            records.append(commit(meta))
            assert meta.database.unsaved_commits() == number + 1
            assert meta.dentries.lookup(ROOT_INO, b"f0") is not None
        assert dump(meta) == before
        meta.rollback()
        assert meta.dentries.lookup(ROOT_INO, b"f2") is not None, "what the log has is not rolled back"
    assert [record.levelname for record in caplog.records] == ["ERROR"], "said once"
    assert meta.statistics().unsaved_commits == 3
    add_file(meta, b"f3")
    records.append(commit(meta))
    assert meta.database.unsaved_commits() == 0
    for record in records:
        copy.apply(record.changeset)
        copy.commit()
    assert dump(meta) == dump(copy)
    assert complaints(meta) == []
    copy.close()


def test_commits_are_refused_when_too_much_waits(
    meta: Metadata, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "UNSAVED_BYTES_MAX", 1000)
    commit(meta)
    with full_disk(meta.database.path), pytest.raises(NoSpaceError):
        for number in range(100):
            add_file(meta, b"f%d" % number)
            commit(meta)
    assert meta.changes_pending() > 0, "what was refused is still in the transaction"


def test_a_disk_too_small_for_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "meta.sqlite"
    path.touch()
    connections.database_files(path)[1].touch()
    with full_disk(path), pytest.raises((NoSpaceError, StoreError)):
        Database.create_fresh(path)


def test_what_cannot_even_be_put_back_stops_further_commits(
    meta: Metadata, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commit(meta)
    add_file(meta, b"f")

    def fail(connection: apsw.Connection, changeset: bytes) -> None:
        raise LogDamagedError("it does not fit")

    with full_disk(meta.database.path):
        monkeypatch.setattr(database, "apply_changeset", fail)
        commit(meta)
    with pytest.raises(apsw.ReadOnlyError):
        add_file(meta, b"g")
    with pytest.raises(StoreError, match="mount again"):
        meta.take_changeset()


def test_a_copied_database_is_independent(path: Path, tmp_path: Path) -> None:
    """What an administrator's backup of the directory gives."""
    backup = tmp_path / "backup"
    backup.mkdir()
    for file in connections.database_files(path):
        if file.exists():
            shutil.copy(file, backup / file.name)
    meta = Metadata.open(backup / path.name)
    meta.inodes.insert(make_inode(1000))
    commit(meta)
    meta.close()
    meta = Metadata.open(path)
    assert meta.inodes.load(1000) is None
    meta.close()
