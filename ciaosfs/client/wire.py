"""One connection of a session: what is common to all its calls, how long it may be silent among it."""

from __future__ import annotations

from typing import Any

from ciaosfs.base.types import Buffer
from ciaosfs.client.transport import Connection


class Wire:
    """An entered connection, for one thread at a time. Answers come in the order of the requests."""

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        """Whoever has made the connection leaves closing it to `close`."""
        self._connection = connection
        self._timeout_s = timeout_s

    @property
    def reply_body(self) -> bytes:
        """The bytes that came with the last answer."""
        return self._connection.reply_body

    @property
    def is_broken(self) -> bool:
        """Whether nothing can be asked on it any more."""
        return self._connection.is_broken

    @property
    def is_settled(self) -> bool:
        """Whether everything that was sent is answered, and nothing broke."""
        return not self._connection.is_broken and not self._connection.unanswered

    def call(
        self, operation: str, *, body: Buffer = b"", is_patient: bool = False, **arguments: Any
    ) -> dict[str, Any]:
        """Send one request and return its result; `is_patient`: it may take as long as the daemon lives.

        Raises the daemon's error as its own class, UnreachableError, LostAnswerError, or DaemonError when it is silent.
        """
        timeout_s = None if is_patient else self._timeout_s
        return self._connection.call(operation, body=body, timeout_s=timeout_s, **arguments)

    def send(self, operation: str, *, body: Buffer = b"", **arguments: Any) -> None:
        """Send a request whose answer `receive` returns. Raises as `call`."""
        self._connection.send(operation, body=body, timeout_s=self._timeout_s, **arguments)

    def receive(self) -> dict[str, Any]:
        """The result of the oldest request that is not yet answered. Raises as `call`."""
        return self._connection.receive(timeout_s=self._timeout_s)

    def is_fresh(self) -> bool:
        """Whether, after some idle time, the daemon is still at the other end."""
        return self._connection.is_fresh()

    def interrupt(self) -> None:
        """From another thread: let what waits on it fail at once."""
        self._connection.interrupt()

    def close(self) -> None:
        """Let go of it, whatever is under way."""
        self._connection.close()
