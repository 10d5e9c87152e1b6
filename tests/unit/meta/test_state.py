"""Where the database stands in the chain of commits."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciaosfs.base.errors import LogDamagedError
from ciaosfs.meta.database import Database
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.state import State, StateTable
from tests.unit.meta.support import STORE_ID, add_file, commit, fresh


def test_a_store_begins_before_its_first_commit(meta: Metadata) -> None:
    state = meta.state.load()
    assert (state.sequence, state.commit_id, state.store_id) == (0, 0, STORE_ID)
    assert State.first(STORE_ID).name_seed != state.name_seed


def test_commits_form_a_chain(meta: Metadata) -> None:
    ids = [meta.state.load().commit_id]
    for sequence in range(1, 4):
        commit(meta)
        state = meta.state.load()
        assert (state.sequence, state.parent_id) == (sequence, ids[-1])
        ids.append(state.commit_id)
    assert len(set(ids)) == 4
    assert all(0 <= commit_id < 1 << 63 for commit_id in ids), "an id is a column of a child"


def test_what_is_saved_counts_from_its_commit_on(meta: Metadata) -> None:
    """The append of the needle failed: the next attempt is the same number on the same parent, told apart by
    time.
    """
    commit(meta)
    before = meta.state.load()
    first = meta.state.successor(epoch=1, time_ns=1000, log_volume_min=0)
    meta.state.save(first)
    meta.take_changeset()
    assert meta.state.load() == before
    second = meta.state.successor(epoch=1, time_ns=500, log_volume_min=0)
    assert (second.sequence, second.parent_id) == (first.sequence, first.parent_id)
    assert second.time_ns > first.time_ns and second.commit_id != first.commit_id
    meta.state.save(second)
    meta.take_changeset()
    meta.commit()
    assert meta.state.load() == second


def test_the_state_is_what_was_committed_when_opened_again(tmp_path: Path) -> None:
    meta = fresh(tmp_path / "meta.sqlite")
    commit(meta)
    state = meta.state.load()
    meta.state.save(meta.state.successor(epoch=2, time_ns=9, log_volume_min=3))
    meta.close()
    again = Metadata.open(tmp_path / "meta.sqlite")
    assert again.state.load() == state
    assert again.dentries.seed == state.name_seed
    again.close()


def test_a_rolled_back_first_commit_leaves_the_beginning(tmp_path: Path, meta: Metadata) -> None:
    add_file(meta, b"f")
    record = commit(meta)
    other = Metadata.create_fresh(tmp_path / "other", STORE_ID)
    start = other.state.load()
    other.apply(record.changeset)
    assert other.state.load() == meta.state.load()
    other.rollback()
    assert other.state.load() == start and other.dentries.seed == start.name_seed
    other.close()


def test_a_broken_chain_is_our_bug(meta: Metadata) -> None:
    commit(meta)
    state = meta.state.load()
    with pytest.raises(AssertionError):
        meta.state.save(state)
    with pytest.raises(AssertionError):
        meta.state.save(state.replace(sequence=2, parent_id=state.parent_id))


def test_without_a_row_nothing_is_known(tmp_path: Path) -> None:
    database = Database.create_fresh(tmp_path / "m")
    with pytest.raises(LogDamagedError):
        StateTable(database).load()
    database.close()
    with pytest.raises(LogDamagedError):
        Metadata.open(tmp_path / "m")
