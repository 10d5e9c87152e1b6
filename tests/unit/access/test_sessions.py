"""Bindings follow sessions and nothing else, and end with them, whatever numbers come round again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, trio_test

from ciaosfs.access.processes import KernelProcesses, is_own_thread
from ciaosfs.access.sessions import LOOK_S, REANCHOR_S, TRUST_S, Binding, Sessions
from ciaosfs.base import clock, limits
from ciaosfs.base.errors import AccessError
from tests.support.builders import eventually
from tests.support.sessions import NumberedProcesses, SessionProcess, grant, session_process

UID = 4001
LEADER, MEMBER, OTHER = 100, 101, 102


@pytest.fixture
def leader() -> Iterator[SessionProcess]:
    with session_process() as process:
        yield process


@asynccontextmanager
async def running(sessions: Sessions) -> AsyncIterator[Sessions]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sessions.run)
        yield sessions
        nursery.cancel_scope.cancel()


def real() -> Sessions:
    return Sessions(KernelProcesses(), is_own_thread)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# Real processes


@trio_test
async def test_children_and_threads_have_it_and_new_sessions_have_not(leader: SessionProcess) -> None:
    async with running(real()) as sessions:
        binding = sessions.login(leader.pid, UID, grant())
        child, thread, gone = leader.ask("fork"), leader.ask("thread"), leader.ask("setsid")
        await eventually(lambda: os.getsid(gone) == gone)
        for pid in (leader.pid, child, thread):
            assert sessions.binding_of(pid, UID) is binding
        assert sessions.binding_of(gone, UID) is None
        assert sessions.binding_of(os.getpid(), UID) is None
        assert sessions.binding_of(leader.pid, UID + 1) is None
        assert sessions.binding_of(0, UID) is None
        assert sessions.binding_of(-1, UID) is None


@trio_test
async def test_it_outlives_the_leader_as_long_as_somebody_is_in_the_session(leader: SessionProcess) -> None:
    async with running(real()) as sessions:
        binding = sessions.login(leader.pid, UID, grant())
        child = leader.ask("fork")
        leader.end()
        assert sessions.binding_of(child, UID) is binding
        assert binding.anchor.pid == child
        await trio.sleep(2 * LOOK_S)
        assert sessions.binding_of(child, UID) is binding


@trio_test
async def test_who_logs_in_for_a_session_without_leader_is_not_its_anchor(leader: SessionProcess) -> None:
    async with running(real()) as sessions:
        staying, short = leader.ask("fork"), leader.ask("fork")
        leader.end()
        binding = sessions.login(short, UID, grant())
        assert binding.anchor.pid == staying


@trio_test
async def test_a_session_ends_with_its_last_process(leader: SessionProcess) -> None:
    before = descriptors()
    async with running(real()) as sessions:
        ended: list[Binding] = []
        sessions.on_end(ended.append)
        binding = sessions.login(leader.pid, UID, grant())
        leader.end()
        await eventually(lambda: bool(ended))
        assert ended == [binding]
        assert binding.is_ended and not binding.is_closed  # who listens closes it
        assert len(sessions) == 0
        assert descriptors() == before


_IN_A_SESSION = f"""
import os, threading, trio
from ciaosfs.access.processes import KernelProcesses, is_own_thread
from ciaosfs.access.sessions import Sessions
from tests.support.sessions import grant

sessions = Sessions(KernelProcesses(), is_own_thread)
child = os.fork()
if child == 0:
    os.read(0, 1)
    os._exit(0)
sessions.login(os.getpid(), {UID}, grant())
own = sessions.grant_of(os.getpid(), {UID})
thread = trio.run(trio.to_thread.run_sync, lambda: sessions.grant_of(threading.get_native_id(), {UID}))
print(own, thread, sessions.grant_of(child, {UID}) == grant(), flush=True)
"""


def test_threads_of_this_process_are_nobodys() -> None:
    # In a process that leads a session: whoever started the tests may have given them none.
    with subprocess.Popen(
        [sys.executable, "-c", _IN_A_SESSION],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.communicate()[0].split() == ["None", "None", "True"]
    assert process.returncode == 0


# Numbers that come round again


@pytest.fixture
def processes() -> NumberedProcesses:
    numbered = NumberedProcesses()
    numbered.begin(LEADER, LEADER)
    numbered.begin(MEMBER, LEADER)
    return numbered


def numbered(processes: NumberedProcesses) -> Sessions:
    return Sessions(processes, lambda pid: False)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock of bindings on."""
    now = [1000.0]
    monkeypatch.setattr(clock, "monotonic_s", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def test_a_new_leader_of_the_same_number_has_nothing(
    processes: NumberedProcesses, later: Callable[[float], None]
) -> None:
    sessions = numbered(processes)
    binding = sessions.login(LEADER, UID, grant())
    processes.exit(MEMBER)
    processes.exit(LEADER)
    processes.begin(LEADER, LEADER)
    later(2 * TRUST_S)
    assert sessions.binding_of(LEADER, UID) is None
    assert binding.is_closed and len(sessions) == 0


def test_nor_has_a_child_of_that_leader(processes: NumberedProcesses, later: Callable[[float], None]) -> None:
    sessions = numbered(processes)
    sessions.login(LEADER, UID, grant())
    processes.exit(MEMBER)
    processes.exit(LEADER)
    processes.begin(LEADER, LEADER)
    processes.begin(OTHER, LEADER)
    later(2 * TRUST_S)
    assert sessions.binding_of(OTHER, UID) is None


def test_nor_that_child_when_its_leader_has_gone_and_nobody_looked_for_long(
    processes: NumberedProcesses, later: Callable[[float], None]
) -> None:
    sessions = numbered(processes)
    sessions.login(LEADER, UID, grant())
    processes.exit(MEMBER)
    processes.exit(LEADER)
    later(REANCHOR_S)
    processes.begin(OTHER, LEADER)
    assert sessions.binding_of(OTHER, UID) is None


def test_a_member_becomes_the_anchor_in_time(
    processes: NumberedProcesses, later: Callable[[float], None]
) -> None:
    sessions = numbered(processes)
    binding = sessions.login(LEADER, UID, grant())
    processes.exit(LEADER)
    later(REANCHOR_S / 2)
    assert sessions.binding_of(MEMBER, UID) is binding
    later(REANCHOR_S * 10)
    assert sessions.binding_of(MEMBER, UID) is binding  # its anchor never left
    processes.exit(MEMBER)
    processes.begin(MEMBER, MEMBER)
    assert sessions.binding_of(MEMBER, UID) is None


def test_an_anchor_that_leaves_the_session_is_none(
    processes: NumberedProcesses, later: Callable[[float], None]
) -> None:
    sessions = numbered(processes)
    processes.begin(OTHER, LEADER)
    processes.exit(LEADER)
    binding = sessions.login(OTHER, UID, grant())
    assert binding.anchor.pid == MEMBER
    processes.sessions[MEMBER] = MEMBER
    later(2 * TRUST_S)
    assert sessions.binding_of(MEMBER, UID) is None
    assert sessions.binding_of(OTHER, UID) is binding
    assert binding.anchor.pid == OTHER


def test_sessions_that_cannot_be_seen_are_not_bound(processes: NumberedProcesses) -> None:
    sessions = numbered(processes)
    processes.begin(OTHER, 0)  # begun outside of what is seen here
    for pid in (OTHER, 0, 999):
        with pytest.raises(AccessError, match="cannot be seen"):
            sessions.login(pid, UID, grant())
    assert sessions.binding_of(OTHER, UID) is None


# What ends a binding


def test_logout_ends_it_for_this_user_alone(processes: NumberedProcesses) -> None:
    sessions = numbered(processes)
    mine, others = sessions.login(LEADER, UID, grant(1)), sessions.login(LEADER, 0, grant(2))
    assert sessions.logout(MEMBER, UID) is mine
    assert mine.is_closed
    assert sessions.grant_of(MEMBER, UID) is None
    assert sessions.binding_of(MEMBER, 0) is others
    assert sessions.logout(MEMBER, UID) is None


def test_an_ended_token_refuses_until_logout(processes: NumberedProcesses) -> None:
    sessions = numbered(processes)
    ended: list[Binding] = []
    sessions.on_end(ended.append)
    binding = sessions.login(LEADER, UID, grant(1))
    sessions.login(LEADER, 0, grant(2))
    sessions.token_ended(1)
    sessions.token_ended(1)
    assert ended == [binding]
    assert sessions.binding_of(MEMBER, UID) is binding and binding.is_ended
    sessions.logout(MEMBER, UID)
    assert sessions.binding_of(MEMBER, UID) is None
    assert ended == [binding]


def test_another_token_takes_the_place_of_the_first(processes: NumberedProcesses) -> None:
    sessions = numbered(processes)
    first = sessions.login(LEADER, UID, grant(1))
    assert sessions.login(MEMBER, UID, grant(1)) is first
    second = sessions.login(MEMBER, UID, grant(2))
    assert first.is_closed and not second.is_ended
    assert sessions.binding_of(LEADER, UID) is second


def test_there_are_only_so_many(processes: NumberedProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SESSIONS_MAX", 3)
    sessions = numbered(processes)
    for uid in range(3):
        sessions.login(LEADER, uid, grant())
    with pytest.raises(AccessError, match="log out"):
        sessions.login(LEADER, 3, grant())
    sessions.logout(LEADER, 0)
    sessions.login(LEADER, 3, grant())


@trio_test
async def test_what_nobody_asks_for_is_let_go_too(
    processes: NumberedProcesses, autojump_clock: MockClock, later: Callable[[float], None]
) -> None:
    async with running(numbered(processes)) as sessions:
        bindings: list[Any] = [sessions.login(LEADER, uid, grant()) for uid in range(300)]
        await trio.sleep(LOOK_S * 3)
        assert len(sessions) == 300
        processes.exit(LEADER)
        await trio.sleep(LOOK_S * 3)
        assert {binding.anchor.pid for binding in bindings} == {MEMBER}
        processes.exit(MEMBER)
        await trio.sleep(LOOK_S * 3)
        assert len(sessions) == 0
