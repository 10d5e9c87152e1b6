"""A connection to a store's daemon: finding its socket, and one blocking call per request."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ciaosfs.base import limits
from ciaosfs.base.errors import DaemonError, FsError, LostAnswerError, UnreachableError
from ciaosfs.client.mounts import Mount
from ciaosfs.control.framing import FrameReader
from ciaosfs.control.messages import Request, decode_part, decode_reply, encode_request

CALL_TIMEOUT_S = 30.0
"""For requests that are answered at once. Others (`sync`) wait as long as the daemon lives."""
_UCRED = struct.Struct("=iII")
"""struct ucred of unix(7)."""
_TIMEVAL = struct.Struct("@ll")
MOUNT_NAMES = "mount-*.sock"
"""Matches what `mount_socket_path` gives."""
_RECEIVE_BYTES = 65536
_SOCKET_PATH_BYTES_MAX = 107
"""sun_path has 108 bytes with its end mark."""


def runtime_directory(uid: int | None = None) -> Path:
    """Where daemons of user `uid`, by default this one, keep their sockets: /run/ciaosfs for root, else his own."""
    if uid is None:
        uid = os.geteuid()
    if uid == 0:
        return Path("/run/ciaosfs")
    if uid != os.geteuid():
        return Path(f"/run/user/{uid}/ciaosfs")
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given:
        return Path(given) / "ciaosfs"
    return Path(tempfile.gettempdir()) / f"ciaosfs-{uid}"


def socket_path(store_id: bytes) -> Path:
    """The control socket of the store with this id. Raises DaemonError when its path would be too long."""
    path = runtime_directory() / f"{uuid.UUID(bytes=store_id)}.sock"
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES_MAX:
        raise DaemonError(f"{path} is too long for a socket: set XDG_RUNTIME_DIR to a shorter directory.")
    return path


def mount_socket_path(mount: Mount) -> Path:
    """The name by which the socket is found from the mount alone: a link, by device, beside the socket."""
    return runtime_directory(mount.user_id) / f"mount-{mount.device}.sock"


def listener_at(path: Path) -> int | None:
    """The process that listens at the socket `path` (0: not known which), None when nobody does. Never waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except BlockingIOError:  # many wait to be accepted
            return 0
        pid: int = _UCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
        return pid


def make_runtime_directory() -> None:
    """Make the directory for sockets. Raises DaemonError when another user could have put something there."""
    directory = runtime_directory()
    try:
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            pass
        else:  # not mkdir's mode, which the umask would cut: other users are to reach the socket and be refused there
            directory.chmod(0o755 if os.geteuid() == 0 else 0o700)
        found = directory.lstat()
    except OSError as error:
        raise DaemonError(f"{directory} cannot be made: {error.strerror}.") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise DaemonError(
            f"{directory} is not a directory of your own that nobody else can write: remove it."
        )


class Connection:
    """A context manager that connects on entering and closes on leaving. For one thread at a time.

    Requests may be sent ahead of the answers to those before; answers come in the order of the requests. After an error of
    the connection itself it `is_broken`, and of no further use.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._frames = FrameReader(limits.CONTROL_REPLY_BYTES_MAX)
        self._is_cut = False
        self.unanswered = 0
        """Requests that were sent and not answered."""
        self.is_broken = False
        self.reply: dict[str, Any] = {}
        self.reply_body = b""

    def __enter__(self) -> Connection:
        # With a timeout of Python's the kernel would not wait at all for a daemon that has many to accept.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(CALL_TIMEOUT_S), 0))
        try:
            self._socket.connect(os.fspath(self._path))
        except OSError as error:
            self._socket.close()
            self.is_broken = True
            if error.errno == errno.EAGAIN:
                raise FsError(
                    errno.EAGAIN, "Too many clients connect to the daemon at once: try again."
                ) from error
            raise UnreachableError(
                f"The daemon does not answer at {self._path}: {error.strerror}."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it, whatever is under way. The daemon forgets what was begun, unless another process has it, too."""
        self.is_broken = True
        self._socket.close()

    def interrupt(self) -> None:
        """From another thread: let what waits on it fail at once."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def is_fresh(self) -> bool:
        """Whether the daemon is still at the other end of a connection on which nothing is under way."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def auth(self, token: str) -> dict[str, Any]:
        """Be judged by `token` from now on; raises AccessError when it is not valid."""
        return self.call("auth", token=token)

    def call(
        self,
        operation: str,
        *,
        body: bytes | bytearray | memoryview = b"",
        timeout_s: float | None = CALL_TIMEOUT_S,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Send one request, with `body` behind it, and return its result; bytes that came with it are in `reply_body`.

        Raises the daemon's error as its own class; UnreachableError or LostAnswerError when the daemon went away,
        DaemonError when it took longer than `timeout_s` (None: waits as long as the daemon lives).
        """
        for _ in self.stream(operation, body=body, timeout_s=timeout_s, **arguments):
            pass
        return self.reply

    def stream(
        self,
        operation: str,
        *,
        body: bytes | bytearray | memoryview = b"",
        timeout_s: float | None = CALL_TIMEOUT_S,
        **arguments: Any,
    ) -> Iterator[dict[str, Any]]:
        """Send one request and yield the parts that come before its result, which is in `reply` afterwards.

        `timeout_s` is how long the daemon may be silent. Raises as `call`.
        """
        self.send(operation, body=body, timeout_s=timeout_s, **arguments)
        yield from self._parts(timeout_s)

    def send(
        self,
        operation: str,
        *,
        body: bytes | bytearray | memoryview = b"",
        timeout_s: float | None = CALL_TIMEOUT_S,
        **arguments: Any,
    ) -> None:
        """Send one request; `receive` gives its result, after those of the requests before it.

        Raises DaemonError when it cannot be sent. That the daemon has gone is told by `receive`, after its last words.
        """
        view = memoryview(body).cast("B")
        line = encode_request(Request(operation, arguments, len(view)))
        self._socket.settimeout(timeout_s)
        self.unanswered += 1
        try:
            self._socket.sendall(line)
            if view:
                self._socket.sendall(view)
        except (BrokenPipeError, ConnectionResetError):
            self._is_cut = True
        except TimeoutError:
            self.is_broken = True
            raise UnreachableError(
                "The daemon does not take the request: it is overloaded, or hangs."
            ) from None
        except OSError as error:
            self.is_broken = True
            raise UnreachableError(f"The connection to the daemon broke: {error.strerror}.") from error

    def receive(self, *, timeout_s: float | None = CALL_TIMEOUT_S) -> dict[str, Any]:
        """The result of the oldest request without one. Raises as `call`."""
        self._socket.settimeout(timeout_s)
        for _ in self._parts(timeout_s):
            pass
        return self.reply

    def _parts(self, timeout_s: float | None) -> Iterator[dict[str, Any]]:
        while (part := decode_part(line := self._next_line(timeout_s))) is not None:
            yield part
        self.unanswered -= 1
        reply = decode_reply(line)
        self.reply_body = self._next_body(reply.body_bytes, timeout_s)
        self.reply = reply.result

    def _next_line(self, timeout_s: float | None) -> bytes:
        while (line := self._frames.next_line()) is None:
            self._frames.feed(self._receive(_RECEIVE_BYTES, timeout_s))
        return line

    def _next_body(self, length: int, timeout_s: float | None) -> bytes:
        pieces = []
        while length:
            piece = self._frames.take(length) or self._receive(length, timeout_s)
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)

    def _receive(self, bytes_max: int, timeout_s: float | None) -> bytes:
        try:
            data = self._socket.recv(bytes_max)
        except TimeoutError:
            self.is_broken = True
            raise DaemonError(f"The daemon did not answer within {timeout_s:g} s.") from None
        except ConnectionResetError:
            # It went without having read all that was sent: if that was one request, it was not carried out.
            raise self._gone(was_asked=self.unanswered > 1) from None
        except OSError as error:
            self.is_broken = True
            raise LostAnswerError(f"The connection to the daemon broke: {error.strerror}.") from error
        if not data:
            raise self._gone(was_asked=not self._is_cut)
        return data

    def _gone(self, *, was_asked: bool) -> DaemonError:
        self.is_broken = True
        if was_asked:
            return LostAnswerError("The daemon went away without an answer: its log may say why.")
        return UnreachableError("The daemon went away before it had taken the request: its log may say why.")
