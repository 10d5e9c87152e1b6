"""Records of the log as bytes, and which of those on the drives are the history."""

from __future__ import annotations

import os
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ciaosfs.base.errors import LogDamagedError, StoreError
from ciaosfs.meta.commitlog import CommitRecord, choose_chain, decode_commit, encode_commit, newest
from ciaosfs.meta.state import State
from tests.unit.meta.support import STORE_ID

START = State.first(STORE_ID)


def after(state: State, epoch: int, time_ns: int = 0) -> State:
    return state.replace(
        sequence=state.sequence + 1,
        epoch=epoch,
        parent_id=state.commit_id,
        time_ns=time_ns or state.time_ns + 1,
    )


def record(state: State) -> CommitRecord:
    return CommitRecord.make(state, b"%d/%d" % (state.epoch, state.sequence))


def line(start: State, epoch: int, count: int) -> list[State]:
    states = []
    for _ in range(count):
        start = after(start, epoch)
        states.append(start)
    return states


def records(*lines: list[State]) -> list[CommitRecord]:
    return [record(state) for states in lines for state in states]


# As bytes


@pytest.mark.parametrize("changeset", [b"", b"short", bytes(100_000), os.urandom(5000)])
def test_a_record_survives(changeset: bytes) -> None:
    commit = CommitRecord(5, 1 << 50, 7, (1 << 63) - 1, -3, changeset)
    data = encode_commit(commit)
    found = decode_commit(data)
    assert replace(found, stored=found.changeset, packed_from=0) == commit
    assert encode_commit(found) == data
    assert decode_commit(memoryview(bytearray(data))) == found
    assert decode_commit(data + bytes(64)) == found, "a needle may be padded"
    assert len(data) < 100 + min(len(changeset), 6000)


def test_any_flipped_bit_and_any_cut_is_noticed() -> None:
    data = encode_commit(CommitRecord(5, 6, 7, 8, 9, bytes(range(256)) * 8))
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        with pytest.raises((LogDamagedError, StoreError)):
            decode_commit(flipped)
        with pytest.raises(LogDamagedError):
            decode_commit(data[:at])


def test_a_newer_version_is_not_called_damage() -> None:
    data = bytearray(encode_commit(CommitRecord(5, 6, 7, 8, 9, b"")))
    data[8] = 2
    with pytest.raises(StoreError, match="newer"):
        decode_commit(data)


# The history


def test_nothing_was_ever_committed() -> None:
    assert newest([]) is None
    assert choose_chain([], START) == []


def test_a_database_that_the_drives_know_nothing_of() -> None:
    assert choose_chain([], line(START, 1, 1)[0]) is None


def test_the_database_is_behind() -> None:
    states = line(START, 1, 5)
    shuffled = records(states)
    random.Random(1).shuffle(shuffled)
    assert choose_chain(shuffled, states[1]) == records(states[2:])
    assert choose_chain(shuffled, START) == records(states)
    assert choose_chain(shuffled, states[4]) == []


def test_copies_of_a_commit_are_one() -> None:
    states = line(START, 1, 3)
    assert choose_chain(records(states) * 3, START) == records(states)


def test_two_contents_of_one_identity_are_damage() -> None:
    one = record(line(START, 1, 1)[0])
    with pytest.raises(LogDamagedError):
        choose_chain([one, replace(one, stored=b"other")], START)


def test_the_database_is_ahead() -> None:
    """Its newest commit did not reach the drives."""
    states = line(START, 1, 4)
    assert choose_chain(records(states[:3]), states[3]) is None


def test_the_log_before_the_database_is_not_needed() -> None:
    states = line(START, 1, 5)
    assert choose_chain(records(states[3:]), states[2]) == records(states[3:])
    assert choose_chain(records(states[4:]), states[2]) is None, "commit 4 is missing"


def test_a_missing_commit_is_never_passed_over() -> None:
    """Going back to before the gap would silently undo what an fsync was answered for."""
    states = line(START, 1, 5)
    assert choose_chain(records(states[:2] + states[3:]), START) is None


def test_a_later_epoch_decides_a_fork() -> None:
    """Commits 3 and 4 of epoch 1 were given up after a crash; then the drive that had them came back."""
    common = line(START, 1, 2)
    given_up = line(common[1], 1, 2)
    went_on = line(common[1], 2, 1)
    found = records(common, given_up, went_on)
    assert choose_chain(found, START) == records(common, went_on)
    assert choose_chain(found, given_up[0]) is None
    assert choose_chain(found, went_on[0]) == []


def test_the_later_attempt_at_a_number_counts() -> None:
    """The append of the first failed half-way; only the second was synced, and only what it covers was
    answered for.
    """
    common = line(START, 1, 2)
    failed = after(common[1], 1, 100)
    worked = after(common[1], 1, 101)
    found = records(common, [worked, failed])
    assert choose_chain(found, START) == records(common, [worked])
    followed = after(worked, 1, 90)
    assert choose_chain([*found, record(followed)], START) == records(common, [worked, followed])


def test_a_record_that_misstates_its_number_breaks_the_chain() -> None:
    states = line(START, 1, 3)
    wrong = replace(record(states[1]), sequence=9)
    assert choose_chain([record(states[0]), wrong, record(states[2])], START) is None


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.booleans()), max_size=8), st.randoms())
def test_history_is_what_a_process_that_never_saw_the_forks_would_tell(
    openings: list[tuple[int, int, bool]], shuffle: random.Random
) -> None:
    """Each opening forgets some commits of the end (they were in doubt), goes on in a new epoch, and leaves
    the forgotten ones on drives that may come back. Every database that stands on the history must be led
    along it to its end.
    """
    history = [START]
    on_drives: list[State] = []
    forgotten: list[State] = []
    for epoch, (forget, count, comes_back) in enumerate(openings, 1):
        cut = max(1, len(history) - forget)
        gone, history = history[cut:], history[:cut]
        on_drives = [state for state in on_drives if state not in gone]
        forgotten += gone if comes_back else []
        new = line(history[-1], epoch, count)
        history += new
        on_drives += new
    found = records(on_drives, forgotten, on_drives)
    shuffle.shuffle(found)
    for at, base in enumerate(history):
        assert choose_chain(found, base) == records(history[at + 1 :])
    for state in forgotten:
        assert choose_chain(found, state) is None
