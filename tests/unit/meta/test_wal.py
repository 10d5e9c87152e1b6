"""Going back by whole commits: what recovery does with a database that is ahead of the drives."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ciaosfs.base.errors import LogDamagedError
from ciaosfs.meta import wal
from ciaosfs.meta.connections import database_files
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import add_file, commit, complaints, dump, fresh


def checkpoint(meta: Metadata) -> None:
    running = meta.database.begin_checkpoint()
    running.run()
    running.finish()


def power_cut(source: Path, directory: Path) -> Path:
    """The database and its write-ahead log as they are now; the log's index does not survive."""
    directory.mkdir()
    for file in database_files(source)[:2]:
        shutil.copy(file, directory / file.name)
    return directory / source.name


def test_commits_are_dropped_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "m"
    meta = fresh(path)
    commit(meta)
    checkpoint(meta)
    moments = [dump(meta)]
    for number in range(4):
        add_file(meta, b"f%d" % number)
        commit(meta)
        moments.append(dump(meta))
    meta.close()
    for moment in reversed(moments[:-1]):
        meta = Metadata.open(path, drop_wal=True)
        assert dump(meta) == moment
        meta.close()
    with pytest.raises(LogDamagedError, match="cannot go back"):
        Metadata.open(path, drop_wal=True)  # a checkpoint has copied the commit that is the newest now
    meta = Metadata.open(path)
    assert dump(meta) == moments[0]
    meta.close()


def test_a_dropped_commit_is_gone_for_good(tmp_path: Path) -> None:
    path = tmp_path / "m"
    meta = fresh(path)
    commit(meta)
    add_file(meta, b"dropped")
    commit(meta)
    meta.close()
    meta = Metadata.open(path, drop_wal=True)
    add_file(meta, b"instead")
    commit(meta)
    meta.close()
    meta = Metadata.open(path)
    assert [row[1] for row in meta.dentries.list_after(1, 0, 10)] == [b"instead"]
    assert complaints(meta) == []
    meta.close()


def test_without_the_log_alone_the_file_may_be_a_mix(tmp_path: Path) -> None:
    """Why the log is cut back and never removed.

    A checkpoint that a reader held back has copied some pages of commit 2, and left out those that commit 3
    changed again. Commit 3 is then lost on the drives. Commit 2 is complete in the log, and nowhere else.
    """
    path = tmp_path / "m"
    meta = fresh(path)
    commit(meta)
    checkpoint(meta)
    for number in range(300):
        add_file(meta, b"of commit 2, number %d" % number)
    commit(meta)
    expected = dump(meta)
    running = meta.database.begin_checkpoint()
    for number in range(20):
        add_file(meta, b"of commit 3, number %d" % number)
    commit(meta)
    running.run()
    running.finish()
    cut_off = power_cut(path, tmp_path / "cut")
    bare = power_cut(path, tmp_path / "bare")
    meta.close()

    database_files(bare)[1].unlink()
    try:
        mixed = Metadata.open(bare)
    except LogDamagedError:
        pass
    else:
        assert mixed.quick_check() or dump(mixed) != expected
        mixed.close()

    meta = Metadata.open(cut_off, drop_wal=True)
    assert meta.quick_check() == []
    assert dump(meta) == expected
    assert complaints(meta) == []
    meta.close()


def test_the_only_commit_of_a_log_is_dropped(tmp_path: Path) -> None:
    """The one before is wholly in the database file."""
    path = tmp_path / "m"
    meta = fresh(path)
    commit(meta)
    checkpoint(meta)
    meta.database.renew_transaction()
    before = dump(meta)
    add_file(meta, b"f")
    commit(meta)
    meta.close()
    meta = Metadata.open(path, drop_wal=True)
    assert dump(meta) == before and meta.database.wal_bytes() == 0
    meta.close()
    with pytest.raises(LogDamagedError, match="cannot go back"):
        Metadata.open(path, drop_wal=True)


def test_frames_of_an_earlier_use_of_the_file_do_not_count(tmp_path: Path) -> None:
    """SQLite has begun the log anew in the same file, since a reader kept us from emptying it."""
    path = tmp_path / "m"
    meta = fresh(path)
    for number in range(30):
        add_file(meta, b"f%d" % number)
        commit(meta)
    before = dump(meta)
    with meta.reader():
        checkpoint(meta)
        assert not meta.database.renew_transaction()
    size = meta.database.wal_bytes()
    meta.inodes.touch(1, 1, 1)
    commit(meta)
    assert meta.database.wal_bytes() == size, "the log was begun anew"
    meta.close()
    assert wal.committed_pages(path) < 10
    meta = Metadata.open(path, drop_wal=True)
    assert dump(meta) == before
    meta.close()
    assert not wal.drop_newest_commit(path)


def test_a_commit_that_a_checkpoint_may_have_copied_is_not_dropped(tmp_path: Path) -> None:
    """The drives confirmed a sync and then lost it all the same: the database is rebuilt from what they have."""
    path = tmp_path / "m"
    meta = fresh(path)
    commit(meta)
    add_file(meta, b"f")
    commit(meta)
    running = meta.database.begin_checkpoint()
    copied = database_files(path).copied
    assert not copied.exists()
    running.run()
    running.finish()
    meta.close()
    for damage in (lambda: None, lambda: copied.write_bytes(b"torn"), lambda: copied.write_bytes(bytes(24))):
        damage()
        with pytest.raises(LogDamagedError, match="cannot go back"):
            Metadata.open(path, drop_wal=True)
    Metadata.open(path).close()


def test_a_torn_end_is_no_commit(tmp_path: Path) -> None:
    path = tmp_path / "m"
    meta = fresh(path)
    commit(meta)
    add_file(meta, b"f")
    commit(meta)
    meta.close()
    log = database_files(path)[1]
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - 100)
    meta = Metadata.open(path)
    assert meta.state.load().sequence == 1
    meta.close()


def test_nothing_to_drop(tmp_path: Path) -> None:
    path = tmp_path / "m"
    assert not wal.drop_newest_commit(path)
    path.with_name("m-wal").write_bytes(b"short")
    assert not wal.drop_newest_commit(path)
