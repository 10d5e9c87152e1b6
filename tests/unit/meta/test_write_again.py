"""A sync of SQLite's log that failed cannot be made good by another sync: the log is written again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from ciaosfs.base.errors import LogDamagedError, StoreError
from ciaosfs.meta import checkpoint, wal
from ciaosfs.meta.connections import database_files
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import add_file, commit, complaints, dump, fresh


class _Disk:
    """What the file system under SQLite is told to do, and what the log was asked."""

    def __init__(self) -> None:
        self.fails = False
        self.written_again: list[int] = []


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Disk]:
    """Connections opened from here on are to a disk that can be made to fail to sync."""
    disk = _Disk()

    class File(apsw.VFSFile):
        def __init__(self, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
            super().__init__("unix", name, flags)

        def xSync(self, flags: int) -> None:
            if disk.fails:
                raise apsw.IOError("the sync failed, says the test")
            super().xSync(flags)

    class Vfs(apsw.VFS):
        def __init__(self) -> None:
            super().__init__("failing", "unix", makedefault=True)

        def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
            return File(name, flags)

    def counted(path: Path, frames: int) -> None:
        disk.written_again.append(frames)
        wal.write_again(path, frames)

    monkeypatch.setattr(checkpoint, "write_again", counted)
    vfs = Vfs()
    yield disk
    vfs.unregister()


def copy_log(meta: Metadata) -> None:
    running = meta.database.begin_checkpoint()
    try:
        running.run()
    finally:
        running.finish()


def test_after_a_failed_sync_the_log_is_written_again_once(disk: _Disk, tmp_path: Path) -> None:
    meta = fresh(tmp_path / "m")
    add_file(meta, b"f")
    commit(meta)
    disk.fails = True
    with pytest.raises(StoreError, match="cannot be written"):
        copy_log(meta)
    with pytest.raises(StoreError, match="cannot be written"):
        copy_log(meta)
    disk.fails = False
    commit(meta)
    disk.written_again.clear()
    copy_log(meta)
    assert disk.written_again == [wal.committed_pages(tmp_path / "m")]
    commit(meta)
    copy_log(meta)
    assert len(disk.written_again) == 1
    assert complaints(meta) == []
    meta.close()


def test_so_it_is_when_another_process_may_have_met_the_failure(disk: _Disk, tmp_path: Path) -> None:
    meta = fresh(tmp_path / "m")
    commit(meta)
    assert disk.written_again == []
    meta.close()
    left = wal.committed_pages(tmp_path / "m")
    meta = Metadata.open(tmp_path / "m")
    for name in (b"new", b"newer"):
        add_file(meta, name)
        commit(meta)
    before = dump(meta)
    copy_log(meta)
    assert disk.written_again == [left], "what this process wrote is synced for the first time"
    assert dump(meta) == before
    add_file(meta, b"newest")
    commit(meta)
    copy_log(meta)
    assert disk.written_again == [left]
    meta.close()


def test_a_log_that_cannot_be_read_back_as_it_was_written_is_not_copied(disk: _Disk, tmp_path: Path) -> None:
    """Its pages had left memory before they were written again."""
    meta = fresh(tmp_path / "m")
    commit(meta)
    meta.close()
    log = database_files(tmp_path / "m").wal
    content = bytearray(log.read_bytes())
    wal.write_again(tmp_path / "m", wal.committed_pages(tmp_path / "m"))
    assert log.read_bytes() == content
    content[-100] ^= 1
    log.write_bytes(content)
    with pytest.raises(LogDamagedError, match="is damaged"):
        wal.write_again(tmp_path / "m", wal.committed_pages(tmp_path / "m"))
