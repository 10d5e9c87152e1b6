"""One client, from its first request to its last: reads them, has them carried out in order, sends the answers.

A client may send requests without waiting for answers; nothing is read from it while one is carried out, so what it
sends ahead stays in its socket. The caller is judged before a body is read: what is refused is read past, and
not kept. What is no request at all is answered and ends the connection, since its body could be taken for requests.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError, FsError, UsageError
from ciaosfs.control.framing import FrameReader
from ciaosfs.control.messages import Request, decode_request, encode_failure, encode_part, encode_result
from ciaosfsd.control.bodies import BodyBudget, Lease
from ciaosfsd.control.call import Answer, Call, Operation
from ciaosfsd.control.dispatch import ClientGoneError, Dispatcher
from ciaosfsd.control.peer import Peer

log = logging.getLogger(__name__)

_LINE_PIECE_BYTES = 16 * limits.KIB
_BODY_PIECE_BYTES = 64 * limits.KIB
_CLOSING_S = 5.0


class Conversation:
    """With the client at the other end of `stream`, which the caller owns. `run` is called once."""

    def __init__(
        self, stream: trio.abc.Stream, peer: Peer, dispatcher: Dispatcher, bodies: BodyBudget
    ) -> None:
        self._stream = stream
        self._peer = peer
        self._dispatcher = dispatcher
        self._bodies = bodies
        self._connection = dispatcher.connection(peer.uid)
        self._frames = FrameReader(limits.CONTROL_MESSAGE_BYTES_MAX)

    async def run(self) -> None:
        """Until the client goes, is silent for too long or sends what is no request."""
        try:
            while (line := await self._next_line()) is not None:
                await self._dispatcher.wait_turn()
                await self._serve(line)
        except ClientGoneError:
            return
        except CiaosError as error:
            await self.refuse(error)
        finally:
            with trio.move_on_after(_CLOSING_S, shield=True):
                await self._connection.close()

    async def refuse(self, error: CiaosError) -> None:
        """Say why, and nothing more."""
        try:
            await self._send(encode_failure(error))
        except ClientGoneError:
            return

    async def _serve(self, line: bytes) -> None:
        """Raises CiaosError when the stream is of no further use."""
        request = decode_request(line)
        with self._bodies.lease(self._peer.uid) as lease:
            try:
                row, _ = self._admit(request)
            except CiaosError as error:
                await self._skip_body(request.body_bytes)
                await self._send(encode_failure(error))
                return
            body = await self._read_body(request.body_bytes, lease)
            if row.gives_body or row.gives_page:
                await lease.extend(limits.CONTROL_BODY_BYTES_MAX)
            with self._dispatcher.busy():
                reply = await self._reply(request, body)
                del body  # while the answer is on its way only that is held
                lease.shrink(max(0, lease.held - sum(map(len, reply))))
                # One after the other: putting them together would copy the bytes.
                for piece in reply:
                    await self._send(piece)

    def _admit(self, request: Request) -> tuple[Operation, Call]:
        """Whether it may be carried out now. Raises CiaosError."""
        row = self._dispatcher.row(request.operation)
        call = self._dispatcher.admit(row, self._peer, self._connection)
        if request.body_bytes and not row.takes_body:
            raise UsageError(f"No bytes may follow the request {row.name}.")
        return row, replace(call, arguments=request.arguments)

    async def _reply(self, request: Request, body: bytes) -> tuple[bytes | bytearray | memoryview, ...]:
        """What is to be sent."""
        try:
            row, call = self._admit(request)  # again: the token may have ended while the body came
            answer = await self._dispatcher.carry_out(row, replace(call, body=body), self._send_part)
            return _encode_answer(answer)
        except ClientGoneError:
            raise
        except CiaosError as error:
            return (encode_failure(error),)
        except Exception as error:
            log.exception("control request failed op=%s", request.operation)
            return (encode_failure(error),)

    async def _send_part(self, part: Mapping[str, Any]) -> None:
        await self._send(encode_part(part))

    async def _next_line(self) -> bytes | None:
        """None when the client has gone, in the middle of a line or not, or is silent for too long."""
        while True:
            line = self._frames.next_line()
            if line is not None:
                return line
            if self._frames.has_pending:
                return await self._rest_of_line()
            patience_s = float("inf") if self._connection.is_keeping else limits.CONTROL_IDLE_S
            with trio.move_on_after(patience_s) as idle:
                data = await self._receive(_LINE_PIECE_BYTES)
            if idle.cancelled_caught or not data:
                return None
            self._frames.feed(data)

    async def _rest_of_line(self) -> bytes | None:
        patience = _Patience("The rest of the request")
        while (line := self._frames.next_line()) is None:
            with patience.spend():
                data = await self._receive(_LINE_PIECE_BYTES)
            if not data:
                return None
            self._frames.feed(data)
        return line

    async def _read_body(self, length: int, lease: Lease) -> bytes:
        """What waiting for room takes is not the client's fault, and not counted."""
        if not length:
            return b""
        patience = _Patience("The body")
        pieces = []
        with lease.arriving():
            while length:
                piece = await self._body_piece(length, patience)
                await lease.extend(len(piece))
                pieces.append(piece)
                length -= len(piece)
        return b"".join(pieces)

    async def _skip_body(self, length: int) -> None:
        patience = _Patience("The body")
        while length:
            length -= len(await self._body_piece(length, patience))

    async def _body_piece(self, length_max: int, patience: _Patience) -> bytes:
        if piece := self._frames.take(length_max):
            return piece
        await self._dispatcher.wait_turn()
        with patience.spend():
            piece = await self._receive(min(length_max, _BODY_PIECE_BYTES))
        if not piece:
            raise ClientGoneError("the client has gone in the middle of a body")
        return piece

    async def _receive(self, bytes_max: int) -> bytes:
        try:
            return bytes(await self._stream.receive_some(bytes_max))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGoneError("the connection broke") from error

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(limits.CONTROL_SEND_S) as late:
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ClientGoneError("the connection broke") from error
        if late.cancelled_caught:
            raise ClientGoneError("the client does not take its answer")


class _Patience:
    """How long is waited, all in all, until `what` has arrived."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._left_s = limits.CONTROL_ARRIVAL_S

    @contextmanager
    def spend(self) -> Iterator[None]:
        """FsError ETIMEDOUT when nothing is left."""
        began_s = trio.current_time()
        with trio.move_on_after(self._left_s) as late:
            yield
        if late.cancelled_caught:
            raise FsError(
                errno.ETIMEDOUT,
                f"{self._what} did not arrive within {limits.CONTROL_ARRIVAL_S:g} s: send it again.",
            )
        self._left_s -= trio.current_time() - began_s


def _encode_answer(answer: Answer) -> tuple[bytes | bytearray | memoryview, ...]:
    line = encode_result(answer.result, len(answer.body))
    return (line, answer.body) if answer.body else (line,)
