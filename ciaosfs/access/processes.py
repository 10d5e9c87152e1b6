"""What the kernel says about processes and their sessions (setsid(2)), by numbers of processes or of their threads."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

_PROC = Path("/proc")


class Anchor(NamedTuple):
    """A process held by a descriptor, so that its number cannot mean another one unnoticed. Who has it closes it."""

    pid: int
    pidfd: int


class Processes(Protocol):
    """What sessions are recognised by. Numbers are those that this process sees."""

    def session_of(self, pid: int) -> int:
        """The session of a process or thread; 0 when it is none that has a number here. Raises ProcessLookupError."""
        ...

    def hold(self, pid: int) -> Anchor | None:
        """The process, held; of a thread the one it belongs to. None when it has ended."""
        ...

    def is_there(self, anchor: Anchor) -> bool:
        """Whether it exists, perhaps as a zombie: its number, and that of its session, are in use as long."""
        ...

    def members(self, sessions: Collection[int], but: int = 0) -> dict[int, int]:
        """A process, other than `but`, in each of the sessions in which there is one. Looks at all there are."""
        ...

    def parent_and_user(self, pid: int) -> tuple[int, int]:
        """Its parent's number and its effective user. Raises ProcessLookupError."""
        ...


class KernelProcesses:
    """The real ones."""

    session_of = staticmethod(os.getsid)

    def hold(self, pid: int) -> Anchor | None:
        with suppress(OSError):
            return Anchor(pid, os.pidfd_open(pid))
        with suppress(OSError, KeyError, ValueError):  # a thread's number, or gone
            leader = int(_status(pid)["Tgid"])
            if leader != pid:
                return Anchor(leader, os.pidfd_open(leader))
        return None

    def is_there(self, anchor: Anchor) -> bool:
        try:
            signal.pidfd_send_signal(anchor.pidfd, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # of another user, and there
            pass
        return True

    def members(self, sessions: Collection[int], but: int = 0) -> dict[int, int]:
        found: dict[int, int] = {}
        for entry in _PROC.iterdir():
            if entry.name.isdigit():
                pid = int(entry.name)
                with suppress(ProcessLookupError):
                    session = os.getsid(pid)
                    if session in sessions and pid != but:
                        found.setdefault(session, pid)
        return found

    def parent_and_user(self, pid: int) -> tuple[int, int]:
        try:
            status = _status(pid)
            return int(status["PPid"]), int(status["Uid"].split()[1])
        except (OSError, KeyError, ValueError):
            raise ProcessLookupError(f"there is no process {pid}") from None


def is_own_thread(pid: int) -> bool:
    """Whether `pid` is the number of a thread of this process."""
    return Path(f"/proc/{os.getpid()}/task/{pid}").exists()


def _status(pid: int) -> dict[str, str]:
    lines = (_PROC / str(pid) / "status").read_text(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
