"""A command in a session of its own, logged in as long as it runs.

The child begins a session and waits; its parent, which stays where the terminal is, logs that session in on a
connection that it keeps, and lets the child go on. So there is no moment at which the command runs without its token,
and when this process dies in whatever way, the connection goes and the token with it.

The child is not waited for before its session is logged out: as a zombie it keeps the number of the session in use.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Final, NoReturn

from ciaosfs.base.errors import DaemonError
from ciaosfs.cli import output
from ciaosfs.client.transport import Connection

TO_ALL: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
"""What a terminal sends to everything in the foreground, of which the command is no longer a part."""
TO_ONE: Final = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT)
NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""As a shell says it."""
_SIGNALLED = 128


def run(connection: Connection, token: str, words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the command `words`; its exit status as a shell would give it. Raises what `login` does."""
    begun, tell_begun = os.pipe()
    released, release = os.pipe()
    signals = [number for number in (*TO_ALL, *TO_ONE) if signal.getsignal(number) is not signal.SIG_IGN]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    signal.signal(
        signal.SIGCHLD, signal.SIG_DFL
    )  # ignored, as it may have been inherited, nobody could be waited for
    pid = os.fork()
    if pid == 0:
        os.close(release)
        _follow(tell_begun, released, words, environment, mask)
    os.close(tell_begun)
    os.close(released)
    for number in signals:
        signal.signal(number, _handler(pid))
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        os.read(begun, 1)
        connection.call("login", token=token, leader=pid)
        os.write(release, b".")
    finally:
        os.close(release)  # without a word: the child ends
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        for number in signals:
            signal.signal(number, signal.SIG_IGN)  # it is over, and what it wrote is still to come
        refusal = os.read(begun, 16)
        status = _log_out(connection, pid)
    if refusal:
        code = int(refusal)
        output.talk(f"ciaosfs: {words[0]}: {os.strerror(code)}.")
        return NOT_FOUND if code == errno.ENOENT else NOT_EXECUTABLE
    return status


def _log_out(connection: Connection, pid: int) -> int:
    try:
        connection.call("logout", leader=pid, timeout_s=None)
    except DaemonError as error:
        output.talk(f"ciaosfs: {error}")
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else _SIGNALLED - code


def _handler(pid: int) -> Callable[[int, FrameType | None], None]:
    def hand_on(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if number in TO_ALL:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)

    return hand_on


def _follow(
    tell_begun: int,
    released: int,
    words: Sequence[str],
    environment: Mapping[str, str],
    mask: Iterable[int],
) -> NoReturn:
    """What the child does: nothing of this program goes on in it. What was ignored stays ignored, as nohup(1) wants it."""
    try:
        os.setsid()
        os.write(tell_begun, b".")
        if os.read(released, 1):
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.execvpe(words[0], list(words), environment)
    except OSError as error:
        os.write(tell_begun, str(error.errno or errno.EIO).encode())
    finally:
        os._exit(NOT_EXECUTABLE)
