"""Real processes in sessions of their own, and stand-ins for them whose numbers a test decides."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from ciaosfs.access.grants import Grant
from ciaosfs.access.processes import Anchor
from ciaosfs.control.scopes import Scope

ALL = Scope.READ | Scope.WRITE | Scope.DELETE


def grant(token_id: int = 1, prefix: tuple[bytes, ...] = (b"alice",), scopes: Scope = ALL) -> Grant:
    return Grant(token_id, "alice", prefix[:1], prefix, scopes, 0)


_SERVE = """
import os, sys
for line in sys.stdin:
    if line == "fork\\n":
        child = os.fork()
        if child == 0:
            sys.stdin.close()
            os.close(1)
            os.read(int(sys.argv[1]), 1)
            os._exit(0)
    elif line == "setsid\\n":
        child = os.fork()
        if child == 0:
            os.close(1)
            os.setsid()
            os.read(int(sys.argv[1]), 1)
            os._exit(0)
    elif line == "thread\\n":
        import threading
        ids = []
        ready = threading.Event()
        def wait():
            ids.append(threading.get_native_id())
            ready.set()
            os.read(int(sys.argv[1]), 1)
        threading.Thread(target=wait, daemon=True).start()
        ready.wait()
        child = ids[0]
    print(child, flush=True)
"""


class SessionProcess:
    """A process that leads a session and makes children, threads and sessions when asked."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def ask(self, what: str) -> int:
        """`fork`, `thread` or `setsid` (a child that leaves): its number. A child of `setsid` may not have left yet."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self) -> None:
        """The leader exits and is waited for; its children stay."""
        self._process.kill()
        self._process.wait()


@contextmanager
def session_process() -> Iterator[SessionProcess]:
    """All that came of it have ended afterwards."""
    held, holding = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(held)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        pass_fds=(held,),
    ) as process:
        os.close(held)
        try:
            yield SessionProcess(process)
        finally:
            os.close(holding)  # what they all read from
            process.kill()


class NumberedProcesses:
    """Processes by number, each of a session, for what no real ones can be made to do (`access.processes.Processes`)."""

    def __init__(self) -> None:
        self.sessions: dict[int, int] = {os.getpid(): os.getpid()}
        self._lives: dict[int, int] = {}
        self._held: dict[int, tuple[int, int]] = {}

    def begin(self, pid: int, sid: int) -> None:
        self.sessions[pid] = sid
        self._lives[pid] = self._lives.get(pid, 0) + 1

    def exit(self, pid: int) -> None:
        del self.sessions[pid]

    def session_of(self, pid: int) -> int:
        try:
            return self.sessions[pid]
        except KeyError:
            raise ProcessLookupError from None

    def hold(self, pid: int) -> Anchor | None:
        if pid not in self.sessions:
            return None
        descriptor = os.open(os.devnull, os.O_RDONLY)
        self._held[descriptor] = pid, self._lives.get(pid, 0)
        return Anchor(pid, descriptor)

    def is_there(self, anchor: Anchor) -> bool:
        pid, life = self._held[anchor.pidfd]
        return pid in self.sessions and self._lives.get(pid, 0) == life

    def members(self, sessions: Collection[int], but: int = 0) -> dict[int, int]:
        return {sid: pid for pid, sid in self.sessions.items() if sid in sessions and pid != but}

    def parent_and_user(self, pid: int) -> tuple[int, int]:
        raise ProcessLookupError
