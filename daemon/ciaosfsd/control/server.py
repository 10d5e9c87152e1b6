"""The control socket: accepts clients, reads a request per line, answers each, within bounds.

An operation that takes long may tell how far it is before its reply. It ends when its client has gone, and at once
when the server closes: the store is not kept mounted for it.

Only the daemon's own user and root are let in, by the credentials of the peer. Every request gets an answer, a
refused client too. A client may stay connected; one that is silent for IDLE_S is let go.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError, DaemonError, FsError, UsageError
from ciaosfs.control.framing import LineReader
from ciaosfs.control.messages import Request, decode_request, encode_failure, encode_part, encode_result

log = logging.getLogger(__name__)

Handler = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
StreamHandler = Callable[[Mapping[str, Any], Send], Awaitable[Mapping[str, Any]]]
"""(arguments, what sends a part to the client) -> the reply. Cancelled when the client goes or the server closes."""

IDLE_S = 600.0
SEND_S = 30.0
"""A client that does not take its answer within this time is let go."""
CLOSING_S = 5.0
"""What requests under way are given when the server closes."""
BACKLOG = 128
_RECEIVE_BYTES = 65536
_CREDENTIALS = struct.Struct("3i")


class ControlServer:
    """Serves `handlers` and `streams`, by operation, at the socket `path`."""

    def __init__(
        self,
        path: Path,
        handlers: Mapping[str, Handler],
        streams: Mapping[str, StreamHandler] = MappingProxyType({}),
    ) -> None:
        self._path = path
        self._handlers = handlers
        self._streams = streams
        self._streaming: set[trio.CancelScope] = set()
        self._clients = 0
        self._busy = 0
        self._closing = False
        self._settled = trio.Event()

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept clients until cancelled or `close`d. Reports started when a client could connect."""
        # Whoever owns the store owns its socket: one that lies there is of a daemon that died.
        with suppress(FileNotFoundError):
            self._path.unlink()
        listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with listener:
            await listener.bind(os.fspath(self._path))
            try:
                self._path.chmod(0o600)
                listener.listen(BACKLOG)
                async with trio.open_nursery() as nursery:
                    task_status.started()
                    while True:
                        connection = await self._accept(listener)
                        nursery.start_soon(self._serve_client, connection)
            finally:
                with suppress(FileNotFoundError):
                    self._path.unlink()

    async def close(self) -> None:
        """Give requests under way a while to be answered; then the caller cancels `serve`."""
        self._closing = True
        for scope in self._streaming:
            scope.cancel()
        if self._busy:
            with trio.move_on_after(CLOSING_S):
                await self._settled.wait()

    async def _accept(self, listener: trio.socket.SocketType) -> trio.SocketStream:
        while True:
            try:
                connection, _ = await listener.accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ECONNABORTED):
                    raise
                log.warning("control client not accepted: %s", error.strerror)
                await trio.sleep(0.1)
            else:
                return trio.SocketStream(connection)

    async def _serve_client(self, stream: trio.SocketStream) -> None:
        self._clients += 1
        try:
            async with stream:
                refusal = self._refusal(stream)
                if refusal is not None:
                    await self._send(stream, encode_failure(refusal))
                    return
                await self._converse(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        except Exception:
            log.exception("control client lost to a bug")
        finally:
            self._clients -= 1

    def _refusal(self, stream: trio.SocketStream) -> CiaosError | None:
        if self._clients > limits.CONTROL_CLIENTS_MAX:
            return FsError(errno.EAGAIN, "The daemon has too many clients: try again in a moment.")
        size = _CREDENTIALS.size
        content = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        _, uid, _ = _CREDENTIALS.unpack(content)
        if uid not in (0, os.geteuid()):
            return FsError(errno.EPERM, "Only root and the user who mounted the store may do this.")
        return None

    async def _converse(self, stream: trio.SocketStream) -> None:
        lines = LineReader(limits.CONTROL_MESSAGE_BYTES_MAX)
        while True:
            try:
                line = lines.next_line()
            except UsageError as error:
                await self._send(stream, encode_failure(error))
                return
            if line is not None:
                await self._send(stream, await self._answer(stream, line))
                continue
            with trio.move_on_after(IDLE_S) as idle:
                data = await stream.receive_some(_RECEIVE_BYTES)
            if idle.cancelled_caught or not data:
                return
            lines.feed(data)

    async def _answer(self, stream: trio.SocketStream, line: bytes) -> bytes:
        self._busy += 1
        try:
            request = decode_request(line)
            streaming = self._streams.get(request.operation)
            if streaming is not None:
                return encode_result(await self._carry_out_streaming(stream, streaming, request))
            return encode_result(await self._carry_out(request))
        except trio.BrokenResourceError:
            raise
        except CiaosError as error:
            return encode_failure(error)
        except Exception as error:
            log.exception("control request failed")
            return encode_failure(error)
        finally:
            self._busy -= 1
            if self._closing and not self._busy:
                self._settled.set()

    async def _carry_out(self, request: Request) -> Mapping[str, Any]:
        handler = self._handlers.get(request.operation)
        if handler is None:
            raise UsageError(f"This daemon cannot do {request.operation!r}.")
        return await handler(request.arguments)

    async def _carry_out_streaming(
        self, stream: trio.SocketStream, handler: StreamHandler, request: Request
    ) -> Mapping[str, Any]:
        with trio.CancelScope() as scope:

            async def send(part: Mapping[str, Any]) -> None:
                try:
                    await self._send(stream, encode_part(part))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    scope.cancel()
                    await trio.lowlevel.checkpoint()

            self._streaming.add(scope)
            try:
                if self._closing:
                    scope.cancel()
                return await handler(request.arguments, send)
            finally:
                self._streaming.discard(scope)
        if self._closing:
            raise DaemonError("The store is being unmounted: this ended before it was done.")
        raise trio.BrokenResourceError("the client has gone")

    async def _send(self, stream: trio.SocketStream, line: bytes) -> None:
        with trio.move_on_after(SEND_S) as late:
            await stream.send_all(line)
        if late.cancelled_caught:
            raise trio.BrokenResourceError("the client does not take its answer")
