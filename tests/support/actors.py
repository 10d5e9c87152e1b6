"""Processes that do on a mount what they are told, as a user, in a session: forked, so that it may be any function.

`actor.do(os.stat, path)` runs there and returns, or raises, what it did there. Function, arguments and result are
pickled. A further process of the same session is `actor.fork()`, one that leaves it `actor.fork(new_session=True)`; it
has the descriptors of the first.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import resource
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from ciaosfs.client.transport import Connection

Result = TypeVar("Result")

_LENGTH = struct.Struct("I")
_FORK = "fork"


class Actor:
    """A process; ended, and waited for if it is a child of this one, when the context is left."""

    def __init__(self, uid: int, *, new_session: bool = True) -> None:
        here, there = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            here.close()
            _become(uid, new_session=new_session)
            _serve(there)
        there.close()
        self._adopt(here, pid, is_child=True)

    def _adopt(self, channel: socket.socket, pid: int, *, is_child: bool) -> None:
        self._channel = channel
        self._is_child = is_child
        self._others: list[Actor] = []
        self.pid = pid

    def do(self, function: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """Run `function` there."""
        _send(self._channel, (function, arguments, named))
        outcome, value = _receive(self._channel)
        if outcome == "raised":
            raise value
        result: Result = value
        return result

    def fails(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> int:
        """The errno with which it fails there; 0 when it does not."""
        try:
            self.do(function, *arguments, **named)
        except OSError as error:
            return error.errno or -1
        return 0

    def fork(self, uid: int | None = None, *, new_session: bool = False) -> Actor:
        """A child of it, ended with it. Only root becomes somebody else."""
        here, there = socket.socketpair()
        _send(self._channel, (_FORK, uid, new_session))
        socket.send_fds(self._channel, [b"."], [there.fileno()])
        there.close()
        _, pid = _receive(self._channel)
        actor = Actor.__new__(Actor)
        actor._adopt(here, pid, is_child=False)
        self._others.append(actor)
        return actor

    def login(self, control: Path, secret: str) -> dict[str, Any]:
        """Log its session in."""
        return self.do(call, control, "login", token=secret)

    def logout(self, control: Path) -> dict[str, Any]:
        return self.do(call, control, "logout")

    def end(self) -> None:
        """It exits, and what it forked with it."""
        for other in self._others:
            other.end()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._channel.close()
        if self._is_child:
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)

    def __enter__(self) -> Actor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()


def call(control: Path, operation: str, **arguments: Any) -> dict[str, Any]:
    """One request on the control socket."""
    with Connection(control) as connection:
        return connection.call(operation, **arguments)


def _become(uid: int | None, *, new_session: bool) -> None:
    if new_session:
        os.setsid()
    if uid is not None and uid != os.getuid():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def _serve(channel: socket.socket) -> NoReturn:
    """Until it is killed, or nobody is there any more. Nothing of the test goes on in this process."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what is forked here
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        while True:
            function, arguments, named = _receive(channel)
            if function == _FORK:
                channel = _serve_fork(channel, arguments, named)
                continue
            try:
                reply = ("returned", function(*arguments, **named))
            except Exception as error:  # noqa: BLE001 - it belongs to who asked
                reply = ("raised", error)
            _send(channel, reply)
    finally:
        os._exit(0)


def _serve_fork(channel: socket.socket, uid: int | None, new_session: bool) -> socket.socket:
    """Fork; the channel on which the process that returns from this goes on."""
    _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    other = socket.socket(fileno=descriptors[0])
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        channel.close()
        _become(uid, new_session=new_session)
        os.write(done, b".")
        os.close(done)
        os.close(ready)
        return other
    os.close(done)
    os.read(ready, 1)
    os.close(ready)
    other.close()
    _send(channel, ("forked", pid))
    return channel


def _send(channel: socket.socket, message: Any) -> None:
    content = pickle.dumps(message)
    channel.sendall(_LENGTH.pack(len(content)) + content)


def _receive(channel: socket.socket) -> Any:
    (length,) = _LENGTH.unpack(_exactly(channel, _LENGTH.size))
    return pickle.loads(_exactly(channel, length))


def _exactly(channel: socket.socket, length: int) -> bytes:
    pieces = []
    while length:
        piece = channel.recv(length)
        if not piece:
            raise EOFError("the process has ended")
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)
