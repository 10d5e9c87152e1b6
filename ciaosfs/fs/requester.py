"""Who asks: the credentials of the process behind a request, and what its groups allow it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Requester(NamedTuple):
    """Effective ids and umask of the calling process, as the kernel reports them."""

    uid: int
    gid: int
    pid: int
    umask: int


ROOT = Requester(0, 0, 0, 0o022)
"""Stands for the daemon itself."""


def may_keep_group_bit(who: Requester, gid: int) -> bool:
    """Whether a change of mode by `who` leaves the set-group-id bit of an object of group `gid`, as chmod(2) says.

    Supplementary groups are looked up in /proc; those of a process this one cannot see are none, the safe side.
    """
    return who.uid == 0 or who.gid == gid or gid in _supplementary_groups(who.pid)


def _supplementary_groups(pid: int) -> frozenset[int]:
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return frozenset()
    line = next((line for line in status.splitlines() if line.startswith("Groups:")), "")
    return frozenset(int(number) for number in line.split()[1:])
