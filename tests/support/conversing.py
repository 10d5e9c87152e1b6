"""A client of the control server's conversation over a stream in memory, for tests with virtual time.

`OPERATIONS` are few and tell what they were given: `take` says what its body was, `give` sends as many bytes as asked for,
`refuse` raises, `keep` and `use` hold something open, `break` has a bug; the others need more than anybody has.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from ciaosfsd.control.bodies import BodyBudget
from ciaosfsd.control.call import Answer, Call, Operation
from ciaosfsd.control.conversation import Conversation
from ciaosfsd.control.dispatch import Dispatcher
from ciaosfsd.control.needs import ADMIN, ANYBODY, OWNER
from ciaosfsd.control.peer import Peer, TokenChecks

from ciaosfs.base import limits
from ciaosfs.base.errors import FsError
from ciaosfs.control.framing import FrameReader
from ciaosfs.control.messages import Reply, Request, decode_reply, encode_request

USER = 4242
SECRET = "ciaosfs_7_c0mpletelySecretAndNeverToBeSeenAnywhere0000"


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class Thing:
    """What can be kept open."""

    open = 0

    def __init__(self) -> None:
        Thing.open += 1

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        Thing.open -= 1


async def take(call: Call) -> Mapping[str, Any]:
    await trio.lowlevel.checkpoint()
    return {"arguments": dict(call.arguments), "body": digest(call.body)}


async def give(call: Call) -> Answer:
    await trio.lowlevel.checkpoint()
    length = call.arguments.get("length", 0)
    return Answer({"body": digest(bytes(length))}, bytes(length))


async def refuse(call: Call) -> Mapping[str, Any]:
    raise FsError(errno.ENOENT, "There is no such thing.")


async def keep(call: Call) -> Mapping[str, Any]:
    return {"handle": call.connection.keep(Thing())}


async def use(call: Call) -> Mapping[str, Any]:
    call.connection.kept(call.arguments.get("handle"), Thing)
    return {}


async def close(call: Call) -> Mapping[str, Any]:
    await call.connection.let_go(call.arguments.get("handle"), Thing)
    return {}


async def whoami(call: Call) -> Mapping[str, Any]:
    grant = call.caller.grant
    return {"owner": call.caller.is_owner, "token": None if grant is None else grant.token_id}


async def fail(call: Call) -> Mapping[str, Any]:
    raise ZeroDivisionError(f"{call!r}")


OPERATIONS = (
    Operation("take", ANYBODY, take, takes_body=True),
    Operation("give", ANYBODY, give, gives_body=True),
    Operation("refuse", ANYBODY, refuse, takes_body=True),
    Operation("keep", ANYBODY, keep),
    Operation("use", ANYBODY, use),
    Operation("close", ANYBODY, close),
    Operation("whoami", ANYBODY, whoami),
    Operation("break", ANYBODY, fail, takes_body=True),
    Operation("administer", ADMIN, take, takes_body=True),
    Operation("own", OWNER, take, takes_body=True),
)


class Client:
    """The other end of a conversation."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._frames = FrameReader(limits.CONTROL_REPLY_BYTES_MAX)

    async def send(self, operation: str, body: bytes = b"", **arguments: Any) -> None:
        await self.stream.send_all(encode_request(Request(operation, arguments, len(body))) + body)

    async def line(self) -> bytes | None:
        """The next reply as it is; None when there is no more."""
        while (line := self._frames.next_line()) is None:
            data = await self.stream.receive_some()
            if not data:
                assert not self._frames.has_pending
                return None
            self._frames.feed(bytes(data))
        return line

    async def reply(self) -> tuple[Reply, bytes]:
        """Raises what the daemon answers."""
        line = await self.line()
        assert line is not None, "the conversation has ended"
        reply = decode_reply(line)
        return reply, await self.body(reply.body_bytes)

    async def body(self, length: int) -> bytes:
        body = b""
        while len(body) < length:
            piece = self._frames.take(length - len(body))
            if not piece:
                self._frames.feed(bytes(await self.stream.receive_some()))
            body += piece
        return body

    async def ask(self, operation: str, body: bytes = b"", **arguments: Any) -> dict[str, Any]:
        await self.send(operation, body, **arguments)
        return (await self.reply())[0].result

    async def all_replies(self) -> list[tuple[bool, Any, bytes]]:
        """Until the end: (whether it is good, result or code, body)."""
        replies = []
        while (line := await self.line()) is not None:
            fields = json.loads(line)
            body = await self.body(fields.get("body", 0))
            replies.append((fields["ok"], fields["result"] if fields["ok"] else fields["code"], body))
        return replies


class Desk:
    """What conversations share."""

    def __init__(
        self, operations: Sequence[Operation] = OPERATIONS, checks: TokenChecks | None = None
    ) -> None:
        self.bodies = BodyBudget()
        self.dispatcher = Dispatcher(operations, checks or TokenChecks())
        self.ended = 0

    @asynccontextmanager
    async def client(
        self, uid: int = USER, stream_pair: tuple[trio.abc.Stream, trio.abc.Stream] | None = None
    ) -> AsyncIterator[Client]:
        """A client of user `uid`; on leaving, its conversation has ended and everything is given back."""
        near, far = stream_pair or trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            pid = os.getpid()
            nursery.start_soon(self._converse, far, Peer(pid, uid, uid, (), os.pidfd_open(pid)))
            client = Client(near)
            yield client
            await near.aclose()

    async def _converse(self, stream: trio.abc.Stream, peer: Peer) -> None:
        async with stream:
            with peer:
                await Conversation(stream, peer, self.dispatcher, self.bodies).run()
        self.ended += 1
