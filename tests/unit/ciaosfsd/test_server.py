"""The control server's streams: parts before the reply, and an end when the client goes or the server closes.

And whatever comes through a real socket is answered as the protocol says.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from ciaosfsd.control.call import Call, Operation
from ciaosfsd.control.needs import OWNER
from ciaosfsd.control.peer import TokenChecks
from ciaosfsd.control.server import ControlServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import trio_test

from ciaosfs.access.grants import Grant
from ciaosfs.base.errors import DaemonError, NoSpaceError
from ciaosfs.client.transport import Connection
from ciaosfs.control.scopes import Scope
from tests.support.conversing import OPERATIONS, Thing
from tests.support.rubbish import STREAMS, expected, shown


class Counting:
    """A stream that sends numbers: `to` of them, or for ever."""

    def __init__(self) -> None:
        self.began = trio.Event()
        self.ended = trio.Event()

    async def __call__(self, call: Call) -> dict[str, Any]:
        self.began.set()
        try:
            number = 0
            while number != call.arguments.get("to"):
                await call.send({"number": number})
                number += 1
                await trio.sleep(0.001)
            if "fail" in call.arguments:
                raise NoSpaceError("no more numbers")
            return {"count": number}
        finally:
            self.ended.set()


@asynccontextmanager
async def serving(path: Path, stream: Counting) -> AsyncIterator[ControlServer]:
    server = ControlServer(path, [Operation("check", OWNER, stream, streams=True)])
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        with trio.fail_after(10):
            yield server
        nursery.cancel_scope.cancel()


def call(path: Path, **arguments: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    with Connection(path) as connection:
        parts = list(connection.stream("check", **arguments))
        return parts, connection.reply


@trio_test
async def test_parts_come_before_the_reply(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with serving(path, Counting()):
        parts, reply = await trio.to_thread.run_sync(lambda: call(path, to=3))
    assert parts == [{"number": 0}, {"number": 1}, {"number": 2}]
    assert reply == {"count": 3}


@trio_test
async def test_who_does_not_care_for_parts_gets_the_reply(tmp_path: Path) -> None:
    path = tmp_path / "socket"

    def only_the_reply() -> dict[str, Any]:
        with Connection(path) as connection:
            return connection.call("check", to=3)

    async with serving(path, Counting()):
        assert await trio.to_thread.run_sync(only_the_reply) == {"count": 3}


@trio_test
async def test_a_failure_after_parts_is_raised(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with serving(path, Counting()):
        with pytest.raises(NoSpaceError, match="no more numbers"):
            await trio.to_thread.run_sync(lambda: call(path, to=2, fail=True))


@trio_test
async def test_a_stream_ends_when_its_client_goes(tmp_path: Path) -> None:
    path = tmp_path / "socket"

    def begin_and_go() -> None:
        with Connection(path) as connection:
            assert next(connection.stream("check")) == {"number": 0}

    stream = Counting()
    async with serving(path, stream):
        await trio.to_thread.run_sync(begin_and_go)
        await stream.ended.wait()
        parts, _ = await trio.to_thread.run_sync(lambda: call(path, to=1))
        assert len(parts) == 1


@trio_test
async def test_closing_ends_streams_at_once_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    stream = Counting()
    async with serving(path, stream) as server, trio.open_nursery() as nursery:
        caught: list[BaseException] = []

        def until_it_ends() -> None:
            try:
                call(path)
            except DaemonError as error:
                caught.append(error)

        nursery.start_soon(trio.to_thread.run_sync, until_it_ends)
        await stream.began.wait()
        with trio.fail_after(2):
            await server.close()
        await stream.ended.wait()
        with pytest.raises(DaemonError, match="was not begun"):
            await trio.to_thread.run_sync(lambda: call(path, to=1))
        while not caught:  # noqa: ASYNC110 - a thread tells
            await trio.sleep(0.01)
        assert "is being unmounted" in str(caught[0])


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Serves `OPERATIONS`, in a thread of its own, to sessions whose token has ended: they may do nothing."""
    path = tmp_path_factory.mktemp("real") / "socket"
    scope, ready = trio.CancelScope(), threading.Event()
    ended = Grant(7, "alice", (), (), Scope.ADMIN, 1)
    checks = TokenChecks(grant_of=lambda pid, uid: ended)
    token: list[trio.lowlevel.TrioToken] = []

    async def serve() -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(ControlServer(path, OPERATIONS, checks).serve)
                token.append(trio.lowlevel.current_trio_token())
                ready.set()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert ready.wait(10)
    yield path
    token[0].run_sync_soon(scope.cancel)
    thread.join()


def exchange(path: Path, sent: bytes, step: int, *, is_slow: bool) -> bytes:
    """Send, shut down, and receive until the server has hung up; slowly: in small pieces, with a small buffer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        if is_slow:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.connect(str(path))
        with suppress(BrokenPipeError, ConnectionResetError):
            for at in range(0, len(sent), step):
                client.sendall(sent[at : at + step])
            client.shutdown(socket.SHUT_WR)
        received = b""
        with suppress(ConnectionResetError):  # it has not read everything
            while data := client.recv(100 if is_slow else 1 << 16):
                received += data
        return received


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STREAMS, st.integers(1, 70_000), st.booleans())
def test_whatever_comes_through_the_socket_is_answered(
    real_server: Path, sent: bytes, step: int, is_slow: bool
) -> None:
    logging.getLogger("ciaosfsd.control.conversation").disabled = True
    try:
        received = exchange(real_server, sent, max(step, len(sent) // 200), is_slow=is_slow)
    finally:
        logging.getLogger("ciaosfsd.control.conversation").disabled = False
    lines = [json.loads(line) for line in received.splitlines()]
    replies = [(line["ok"], line["result"] if line["ok"] else line["code"], b"") for line in lines]
    assert shown(replies) == expected(sent)
    assert Thing.open == 0
