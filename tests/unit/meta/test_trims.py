"""Rows of files that were cut short: counted in memory, by transactions and by commits."""

from __future__ import annotations

from pathlib import Path

from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import add_file, commit


def test_rows_are_put_replaced_and_deleted(meta: Metadata) -> None:
    trims = meta.trims
    assert (trims.count, trims.first(), trims.size(5)) == (0, None, None)
    trims.put(7, 100)
    trims.put(5, 300)
    trims.put(5, 200)
    assert (trims.count, trims.first(), trims.size(5), trims.size(7), trims.size(6)) == (2, 5, 200, 100, None)
    trims.delete(5)
    trims.delete(5)
    trims.delete(6)
    assert (trims.count, trims.first(), trims.size(5)) == (1, 7, None)


def test_the_count_follows_what_becomes_of_the_transaction(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    meta = Metadata.create_fresh(path, bytes(16))
    ino = add_file(meta, b"file", size=10)
    meta.trims.put(ino, 10)
    commit(meta)
    meta.trims.put(ino + 1, 10)
    assert meta.trims.count == 2
    meta.rollback()
    assert meta.trims.count == 1
    meta.close()
    meta = Metadata.open(path)
    assert (meta.trims.count, meta.trims.size(ino)) == (1, 10)
    meta.close()
