"""The table of processes: bounded, threads put together, and those that ended are not invented."""

from __future__ import annotations

from pathlib import Path

import pytest
from ciaosfsd.metrics.processes import THREADS_MAX, Processes, identify


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Two threads of one process, and one of another."""
    for thread, leader, command in ((10, 10, "python3"), (11, 10, "worker"), (20, 20, "cp")):
        (tmp_path / str(thread)).mkdir()
        (tmp_path / str(thread) / "comm").write_text(f"{command}\n")
        (tmp_path / str(thread) / "status").write_text(
            f"Name:\t{command}\nTgid:\t{leader}\nUid:\t1\t1000\t2\t3\n"
        )
    return tmp_path


def note(processes: Processes, pid: int, requests: int = 1) -> None:
    processes.note(pid, requests, 100, 10, False, is_watched=False)


def test_threads_of_a_process_are_put_together(proc: Path) -> None:
    processes = Processes(proc)
    for pid, requests in ((10, 5), (11, 6), (20, 1)):
        note(processes, pid, requests)
    found = [(counts.identity, counts.requests, counts.bytes_read) for counts in processes.counts()]
    assert [(identity.pid, identity.command, identity.uid) for identity, _, _ in found if identity] == [
        (10, "python3", 1000),
        (20, "cp", 1000),
    ]
    assert [(requests, carried) for _, requests, carried in found] == [(11, 110), (1, 10)]


def test_those_that_ended_and_the_unknown_are_one_row_without_a_name(proc: Path) -> None:
    processes = Processes(proc)
    for pid in (0, 77, 78):
        note(processes, pid)
    (row,) = processes.counts()
    assert (row.identity, row.requests) == (None, 3)


def test_the_table_is_bounded_and_keeps_the_busiest(proc: Path) -> None:
    processes = Processes(proc)
    note(processes, 10, 1000)
    for pid in range(100, 100 + 20 * THREADS_MAX):
        note(processes, pid)
        assert len(processes._threads) <= THREADS_MAX
    assert any(row.identity is not None and row.identity.pid == 10 for row in processes.counts())


@pytest.mark.parametrize("content", ["", "Name: x\n", "Tgid: no\nUid: 1 2\n", "Tgid:\t1\nUid:\t1\n"])
def test_what_cannot_be_read_is_not_known(proc: Path, content: str) -> None:
    (proc / "20" / "status").write_text(content)
    assert identify(20, proc) is None
    assert identify(99, proc) is None
