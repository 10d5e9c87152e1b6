"""The port answers with metrics and nothing else, one request each, and is not held up by those who do not ask."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from ciaosfsd.metrics import endpoint
from ciaosfsd.metrics.endpoint import CLIENTS_MAX, HOST, REQUEST_BYTES_MAX, Endpoint, listening
from trio.testing import trio_test

from ciaosfs.base.errors import MountError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def served(render: endpoint.Render = lambda: (b"x 1\n", "text/plain")) -> AsyncIterator[int]:
    port = free_port()
    with listening(port) as listener:
        assert listener is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Endpoint(listener, render).serve)
            yield port
            nursery.cancel_scope.cancel()


async def ask(port: int, request: bytes) -> bytes:
    async with await trio.open_tcp_stream(HOST, port) as stream:
        await stream.send_all(request)
        answer = b""
        async for part in stream:
            answer += part
        return answer


@trio_test
async def test_it_answers_with_what_is_rendered_at_that_moment() -> None:
    moments = iter((b"x 1\n", b"x 2\n"))
    async with served(lambda: (next(moments), "text/plain; version=0.0.4")) as port:
        for expected in (b"x 1\n", b"x 2\n"):
            answer = await ask(port, b"GET /metrics?x=1 HTTP/1.1\r\nHost: me\r\n\r\n")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"version=0.0.4" in head
            assert body == expected and f"Content-Length: {len(body)}".encode() in head


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/../etc HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"405"),
    ],
)
@trio_test
async def test_anything_else_is_refused(request_bytes: bytes, status: bytes) -> None:
    async with served() as port:
        assert (await ask(port, request_bytes)).split(b" ")[1] == status


@trio_test
async def test_head_has_no_body() -> None:
    async with served() as port:
        answer = await ask(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n")


@trio_test
async def test_a_bug_is_an_answer_and_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def render() -> tuple[bytes, str]:
        raise ZeroDivisionError

    async with served(render) as port:
        assert b" 500 " in await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert "ZeroDivisionError" in caplog.text


@trio_test
async def test_those_who_send_too_much_or_nothing_do_not_keep_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served() as port:
        assert await ask(port, b"G" * REQUEST_BYTES_MAX + b"\n") == b""
        silent = [await trio.open_tcp_stream(HOST, port) for _ in range(CLIENTS_MAX)]
        for stream in silent:
            await stream.send_all(b"GET")
        await trio.testing.wait_all_tasks_blocked()
        for stream in silent:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert b" 200 " in await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")


def test_no_port_is_no_listener() -> None:
    with listening(0) as listener:
        assert listener is None


def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    port = free_port()
    with (
        listening(port),
        pytest.raises(MountError, match=rf"Port {port} .* is taken: give another with --metrics-port"),
        listening(port),
    ):
        pass
