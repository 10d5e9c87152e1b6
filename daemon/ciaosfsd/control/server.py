"""The control socket: accepts clients within bounds, and closes in good order.

Everybody on the machine may connect to root's daemon; a user's own lies in a directory that only he can enter. What a
client may do is judged at each request (`peer.py`, `needs.py`). Every client gets an answer, one of too many too.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import FsError
from ciaosfsd.control.bodies import BodyBudget
from ciaosfsd.control.call import Operation
from ciaosfsd.control.conversation import Conversation
from ciaosfsd.control.dispatch import Dispatcher
from ciaosfsd.control.names import named
from ciaosfsd.control.peer import Peer, TokenChecks, peer_of

log = logging.getLogger(__name__)

BACKLOG = limits.CONTROL_CLIENTS_MAX
"""Who comes while so many wait to be accepted waits in connect(2)."""


class ControlServer:
    """Serves `operations` at the socket `path`.

    `checks` are the rules of tokens; without them there are none. `mount_name` is what the socket is called beside.
    """

    def __init__(
        self,
        path: Path,
        operations: Iterable[Operation],
        checks: TokenChecks | None = None,
        mount_name: Path | None = None,
    ) -> None:
        self._path = path
        self._mount_name = mount_name
        self._dispatcher = Dispatcher(operations, checks or TokenChecks())
        self._bodies = BodyBudget()
        self._clients: Counter[int] = Counter()
        """By uid."""

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept clients until cancelled or `close`d. Reports started when a client could connect."""
        # Whoever owns the store owns its socket: one that lies there is of a daemon that died.
        with suppress(FileNotFoundError):
            self._path.unlink()
        listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with listener:
            await listener.bind(os.fspath(self._path))
            try:
                self._path.chmod(0o666 if os.geteuid() == 0 else 0o600)
                listener.listen(BACKLOG)
                with named(self._path, self._mount_name):
                    await self._accept_clients(listener, task_status)
            finally:
                with suppress(FileNotFoundError):
                    self._path.unlink()

    async def close(self) -> None:
        """Give requests under way a while to be answered; then the caller cancels `serve`."""
        await self._dispatcher.close()

    async def _accept_clients(
        self, listener: trio.socket.SocketType, task_status: trio.TaskStatus[None]
    ) -> None:
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                connection = await self._accept(listener)
                nursery.start_soon(self._serve_client, connection)

    @property
    def calls(self) -> int:
        """How many calls were admitted since the start."""
        return self._dispatcher.calls

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
        try:
            async with stream:
                with peer_of(stream.socket) as peer, self._counted(peer):
                    conversation = Conversation(stream, peer, self._dispatcher, self._bodies)
                    if self._has_room(peer):
                        await conversation.run()
                    else:
                        await conversation.refuse(
                            FsError(errno.EAGAIN, "The daemon has too many clients: try again in a moment.")
                        )
        except Exception:
            log.exception("control client lost to a bug")

    @contextmanager
    def _counted(self, peer: Peer) -> Iterator[None]:
        self._clients[peer.uid] += 1
        try:
            yield
        finally:
            self._clients[peer.uid] -= 1
            if not self._clients[peer.uid]:
                del self._clients[peer.uid]

    def _has_room(self, peer: Peer) -> bool:
        """Whether this client, who is counted already, may stay."""
        total = self._clients.total()
        if peer.is_owner:
            return total <= limits.CONTROL_CLIENTS_MAX
        return (
            total <= limits.CONTROL_CLIENTS_MAX - limits.CONTROL_CLIENTS_OWNER
            and self._clients[peer.uid] <= limits.CONTROL_CLIENTS_USER_MAX
        )
