"""Who asks: the credentials of the process behind a request."""

from __future__ import annotations

from typing import NamedTuple


class Requester(NamedTuple):
    """Effective ids and umask of the calling process, as the kernel reports them."""

    uid: int
    gid: int
    pid: int
    umask: int


ROOT = Requester(0, 0, 0, 0o022)
"""Stands for the daemon itself."""
