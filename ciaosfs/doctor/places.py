"""What daemons left behind: mounts that nobody answers for, sockets that nobody listens at; and who may reach them."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ciaosfs.client import mounts
from ciaosfs.client.mounts import Mount
from ciaosfs.doctor.finding import Finding, ok, problem, warning, within

ANSWER_S = 5.0
FEW = 2
"""Names in a sentence."""


def check_mounts(found: Sequence[Mount]) -> Iterator[Finding]:
    """Each of these mounts of ciaosfs."""
    name = "mounts"
    for mount in found:
        place = mount.mountpoint
        try:
            is_dead = within(ANSWER_S, mounts.is_dead, place)
        except TimeoutError:
            yield problem(
                name,
                f"{place} does not answer.",
                "See what its daemon does: ciaosfsd.log in the store; SIGUSR1 makes it write its stacks there.",
            )
            continue
        if is_dead:
            yield problem(
                name,
                f"{place} is a dead mount: its daemon has died.",
                f"'ciaosfs mount {mount.store} {place}' mounts its last commit there; 'umount -l {place}' takes it away.",
            )
        else:
            yield ok(name, f"{place} answers.")
    if not found:
        yield ok(name, "No store is mounted.")


def check_sockets(directory: Path) -> Iterator[Finding]:
    """The directory of this user's daemons' sockets."""
    name = "sockets"
    try:
        status = directory.lstat()
    except FileNotFoundError:
        yield ok(name, f"{directory} will be made by the first mount.")
        return
    again = f"Remove it with 'rm -r {directory}': the next mount makes it again."
    if not stat.S_ISDIR(status.st_mode):
        yield problem(name, f"{directory} is no directory, so nothing can be mounted.", again)
    elif status.st_uid != os.geteuid():
        yield problem(name, f"{directory} belongs to user {status.st_uid}, so nothing can be mounted.", again)
    elif status.st_mode & 0o022:
        yield problem(
            name,
            f"Others may write in {directory}, so nothing can be mounted.",
            f"See who did that, then 'chmod go-w {directory}'.",
        )
    else:
        stale = sorted(path.name for path in directory.glob("*.sock") if _is_stale(path))
        if stale:
            yield warning(
                name,
                f"Nobody listens at {_few(stale)} in {directory}: their daemons were killed.",
                "The next mount of each store takes its own away; those of stores that are gone can be removed.",
            )
        else:
            yield ok(name, f"{directory} is yours alone to write.")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= FEW else f"{len(names)} sockets"


def _is_stale(path: Path) -> bool:
    if not path.exists():  # a link to what is gone
        return path.is_symlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(ANSWER_S)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
