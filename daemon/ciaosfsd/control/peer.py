"""Who is at the other end of a connection: what the kernel says of the process that connected, and what tokens it has.

The credentials are those of the moment when it connected. A number of a process may come round again, so a pidfd tells
whether it is still that process. The token that counts is the one given on the connection, else that of the
caller's kernel session; whoever has one is judged by it, the owner too, so that root can try a token.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import trio

from ciaosfs.access.grants import Grant
from ciaosfs.base.errors import AccessError
from ciaosfsd.control.call import Caller, Connection

AnySocket = socket.socket | trio.socket.SocketType

_CREDENTIALS = struct.Struct("3i")
_GROUPS_MAX = 65536
"""NGROUPS_MAX of Linux."""
_SO_PEERGROUPS = 59
_SO_PEERPIDFD = 77
"""Since Linux 6.5."""


def _no_token(secret: str) -> Grant:
    raise AccessError("The token is not valid: ask for a new one.")


def _no_grant(pid: int, uid: int) -> Grant | None:
    return None


def _nothing_lives(token_id: int) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class TokenChecks:
    """The rules of tokens as far as this floor asks: the default knows none.

    `verify` gives the grant of a secret, or AccessError. `grant_of(pid, uid)` is the grant that the kernel session of a
    process is bound to, perhaps of a token that has ended since. `is_live` says whether a token still counts.
    """

    verify: Callable[[str], Grant] = _no_token
    grant_of: Callable[[int, int], Grant | None] = _no_grant
    is_live: Callable[[int], bool] = _nothing_lives


class Peer:
    """The process that connected. A context manager that lets go of its pidfd."""

    def __init__(self, pid: int, uid: int, gid: int, groups: tuple[int, ...], pidfd: int = -1) -> None:
        self._pid = pid
        self.uid = uid
        self._gid = gid
        self._groups = groups
        self._pidfd = pidfd
        self.is_owner = uid in (0, os.geteuid())

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def caller(self, connection: Connection, checks: TokenChecks) -> Caller:
        """Who calls now. Whose token has ended is no owner and has no grant.

        Nor is who uses a connection of a process that has ended: nobody knows by which token that was judged.
        """
        pid = self._pid_now()
        grant = connection.given or (checks.grant_of(pid, self.uid) if pid else None)
        is_live = grant is not None and checks.is_live(grant.token_id)
        has_ended = (
            self._pid > 0 and not pid
        )  # 0 from the beginning: in a container that is not seen from here
        is_owner = self.is_owner and grant is None and not has_ended
        return Caller(pid, self.uid, self._gid, self._groups, is_owner, grant if is_live else None)

    def _pid_now(self) -> int:
        if self._pidfd < 0:
            return 0
        try:
            signal.pidfd_send_signal(self._pidfd, 0)
        except ProcessLookupError:
            return 0
        except PermissionError:  # of another user, and there
            pass
        return self._pid


def peer_of(connection: AnySocket) -> Peer:
    """The peer of a connected Unix socket. Raises OSError."""
    content = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(content)
    groups = _groups(connection)
    return Peer(pid, uid, gid, groups, _pidfd(connection, pid))


def _groups(connection: AnySocket) -> tuple[int, ...]:
    width = struct.calcsize("I")
    for count in (64, _GROUPS_MAX):
        with suppress(OSError):
            content = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, count * width)
            return struct.unpack(f"{len(content) // width}I", content)
    return ()


def _pidfd(connection: AnySocket, pid: int) -> int:
    """-1 when the process has ended already, or cannot be seen from here."""
    try:
        content = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT or pid <= 0:
            return -1
    else:
        return content
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1
