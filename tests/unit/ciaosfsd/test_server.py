"""The control server's streams: parts before the reply, and an end when the client goes or the server closes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from ciaosfsd.control.call import Call, Operation
from ciaosfsd.control.needs import OWNER
from ciaosfsd.control.server import ControlServer
from trio.testing import trio_test

from ciaosfs.base.errors import DaemonError, NoSpaceError
from ciaosfs.client.transport import Connection


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
        while not caught:  # noqa: ASYNC110 - a thread tells
            await trio.sleep(0.01)
        assert "is being unmounted" in str(caught[0])
