"""The local port for metrics: an HTTP server that knows one path and nothing of what lies behind it.

It listens on 127.0.0.1 alone. A client gets one answer and the connection is closed; the number of clients, the bytes of a
request and the time for it are bounded.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from ciaosfs.base.errors import MountError

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
PATH = b"/metrics"
CLIENTS_MAX = 8
REQUEST_BYTES_MAX = 8192
CLIENT_S = 10.0
"""For its request and for taking the answer."""

Render = Callable[[], tuple[bytes, str]]
"""Returns what there is to be read, and its content type."""


@contextmanager
def listening(port: int) -> Iterator[socket.socket | None]:
    """A socket that listens on `port` of this machine; None for port 0.

    Raises MountError when it cannot be had: so this comes before anything is mounted.
    """
    if not port:
        yield None
        return
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, port))
            listener.listen(CLIENTS_MAX)
        except OSError as error:
            raise MountError(_refusal(port, error)) from error
        yield listener


def _refusal(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} of {HOST}, for metrics, is taken: give another with --metrics-port or as metrics_port "
            "in ciaosfs.toml, or 0 for none."
        )
    return f"Port {port} of {HOST}, for metrics, cannot be used: {error.strerror}."


class Endpoint:
    """Answers at `listener`, which `serve` closes, with what `render` returns."""

    def __init__(self, listener: socket.socket, render: Render) -> None:
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        self._render = render
        self._clients = 0

    async def serve(self) -> None:
        """Until cancelled."""
        async with self._listener, trio.open_nursery() as nursery:
            while True:
                stream = await self._accept()
                if stream is None:
                    continue
                if self._clients >= CLIENTS_MAX:
                    await stream.aclose()
                    continue
                self._clients += 1
                nursery.start_soon(self._serve_client, stream)

    async def _accept(self) -> trio.SocketStream | None:
        try:
            return await self._listener.accept()
        except OSError as error:
            log.warning("metrics client not accepted: %s", error.strerror)
            await trio.sleep(0.1)
            return None

    async def _serve_client(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                with trio.move_on_after(CLIENT_S):
                    head = await _read_head(stream)
                    if head is not None:
                        await stream.send_all(self._answer(head))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            self._clients -= 1

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.split(b" ", 1)[0].split(b"?", 1)[0]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"Only GET and HEAD.\n", allow="Allow: GET, HEAD\r\n")
        if path != PATH:
            return _response("404 Not Found", b"There is only /metrics.\n")
        try:
            body, kind = self._render()
        except Exception:
            log.exception("metrics could not be rendered")
            return _response("500 Internal Server Error", b"The daemon's log says why.\n")
        return _response("200 OK", body, kind, is_head=method == b"HEAD")


async def _read_head(stream: trio.SocketStream) -> bytes | None:
    """The lines of a request up to the empty one; None when that does not come, or not soon enough."""
    received = b""
    while b"\r\n\r\n" not in received and b"\n\n" not in received:
        data = await stream.receive_some(REQUEST_BYTES_MAX)
        received += data
        if not data or len(received) > REQUEST_BYTES_MAX:
            return None
    return received


def _response(
    status: str,
    body: bytes,
    kind: str = "text/plain; charset=utf-8",
    *,
    is_head: bool = False,
    allow: str = "",
) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{allow}"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if is_head else body)
