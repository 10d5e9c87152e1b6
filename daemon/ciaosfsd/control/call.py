"""What a handler is given and gives back: the call, who makes it, the answer; and what a connection keeps meanwhile.

A handler is `async def handler(call: Call) -> Mapping[str, Any] | Answer`, and a row of the table of operations says under
which name, who may call it (`needs.py`), and whether bytes come with the request or the answer. By the time it is
called, the caller has been judged. It raises CiaosError for what it refuses.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ciaosfs.access.grants import Grant
from ciaosfs.base import limits
from ciaosfs.base.errors import AccessError, FsError
from ciaosfsd.control.needs import Need


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, by the credentials the peer had when it connected, judged anew at each call.

    `pid` is 0 when that process has ended (somebody else holds the connection). `grant` is that of a live token.
    `is_owner`: root or the daemon's own user, and not judged by a token.
    """

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    is_owner: bool
    grant: Grant | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A result with bytes behind it; for rows with `gives_body`. At most `limits.CONTROL_BODY_BYTES_MAX`."""

    result: Mapping[str, Any]
    body: bytes | bytearray | memoryview = field(default=b"", repr=False)


class Closeable(Protocol):
    """What a connection can keep."""

    async def close(self) -> None:
        """Let go of it. Called once, shielded from cancellation; must not wait long."""


Kind = TypeVar("Kind")


class Tally:
    """How much the connections of each user keep together."""

    def __init__(self) -> None:
        self.by_uid: Counter[int] = Counter()

    def check(self, uid: int) -> None:
        """FsError ENFILE when user `uid` may not keep one thing more."""
        if (
            self.by_uid[uid] >= limits.CONTROL_KEPT_USER_MAX
            or self.by_uid.total() >= limits.CONTROL_KEPT_ALL_MAX
        ):
            raise FsError(errno.ENFILE, "Too much is held open on the control socket: try again in a moment.")


class Connection:
    """What a client has on its connection: the token it gave, and things kept under numbers until it goes.

    Kept things belong to who kept them: with another token they are not there.
    """

    def __init__(self, tally: Tally, uid: int) -> None:
        self.given: Grant | None = None
        """Of the token that the client gave with `auth`."""
        self.caller: Caller | None = None
        """Of the call that is carried out, or the last one."""
        self._tally = tally
        self._uid = uid
        self._kept: dict[int, tuple[int, Closeable]] = {}
        self._next = 1

    @property
    def is_keeping(self) -> bool:
        return bool(self._kept)

    def keep(self, thing: Closeable) -> int:
        """Keep `thing` and return its number. FsError EMFILE or ENFILE when too much is kept; then it is not closed."""
        if len(self._kept) >= limits.CONTROL_KEPT_MAX:
            raise FsError(
                errno.EMFILE, f"A connection may hold {limits.CONTROL_KEPT_MAX} things open: close some."
            )
        self._tally.check(self._uid)
        number, self._next = self._next, self._next + 1
        self._kept[number] = self._token_id(), thing
        self._tally.by_uid[self._uid] += 1
        return number

    def kept(self, number: object, kind: type[Kind]) -> Kind:
        """What is kept under `number`. FsError EBADF when there is nothing of that kind."""
        token_id, thing = 0, None
        if isinstance(number, int) and not isinstance(number, bool):
            token_id, thing = self._kept.get(number, (0, None))
        if not isinstance(thing, kind):
            raise FsError(errno.EBADF, "Nothing of that number is open on this connection: open it again.")
        if token_id != self._token_id():
            raise AccessError("This was opened with another token: open it again.")
        return thing

    async def let_go(self, number: object, kind: type[Closeable]) -> None:
        """Close what is kept under `number` and forget it. Raises as `kept`."""
        thing = self.kept(number, kind)
        assert isinstance(number, int)
        self.forget(number)
        await thing.close()

    def forget(self, number: int) -> None:
        """No longer keep what is kept under `number`, without closing it."""
        del self._kept[number]
        self._tally.by_uid[self._uid] -= 1

    async def close(self) -> None:
        """Close everything that is kept."""
        while self._kept:
            number = next(iter(self._kept))
            _, thing = self._kept[number]
            self.forget(number)
            await thing.close()

    def _token_id(self) -> int:
        grant = None if self.caller is None else self.caller.grant
        return 0 if grant is None else grant.token_id


Send = Callable[[Mapping[str, Any]], Awaitable[None]]


async def send_nowhere(part: Mapping[str, Any]) -> None:
    """For operations that do not stream."""
    raise AssertionError("only a row that streams may send parts")


@dataclass(frozen=True, slots=True)
class Call:
    """One request. Arguments and body are not in its repr: they may be secret."""

    operation: str
    caller: Caller
    connection: Connection
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    send: Send = field(default=send_nowhere, repr=False)
    """Sends a part before the answer. A call that streams is cancelled when its client goes or the server closes."""


Handler = Callable[[Call], Awaitable[Mapping[str, Any] | Answer]]


@dataclass(frozen=True, slots=True)
class Operation:
    """A row of the table of operations. Its name is a heading of PROTOCOL.md.

    `streams`: it may send parts, and is cancelled when nobody waits for them. Others run to their end. Bytes go one
    way only: a request that holds its body must not wait for room for that of its answer (`bodies.py`).
    """

    name: str
    need: Need
    handler: Handler
    streams: bool = False
    takes_body: bool = False
    gives_body: bool = False
    gives_page: bool = False
    """Its result may fill a line: like a body it is made when there is room for it."""

    def __post_init__(self) -> None:
        assert not (self.takes_body and (self.gives_body or self.gives_page))
