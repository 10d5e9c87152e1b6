"""The name of a mount beside the socket: a symbolic link by the device that the kernel's table of mounts shows.

With it the socket is found from a path in the mount by those who may not read the store, which knows its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ciaosfs.client.transport import MOUNT_NAMES


@contextmanager
def named(socket: Path, name: Path | None) -> Iterator[None]:
    """While in this context the link `name` leads to `socket`, in the same directory; None: there is no link."""
    if name is None:
        yield
        return
    assert name.parent == socket.parent
    for old in socket.parent.glob(MOUNT_NAMES):
        _remove(old, socket)  # of a daemon that died; the device may mean another mount by now
    fresh = name.with_suffix(f".{os.getpid()}")
    with suppress(FileNotFoundError):
        fresh.unlink()
    fresh.symlink_to(socket.name)
    fresh.replace(name)
    try:
        yield
    finally:
        _remove(name, socket)  # unless a later mount has got the device, and the name


def _remove(name: Path, socket: Path) -> None:
    """Remove the link if it leads to `socket`."""
    with suppress(FileNotFoundError):
        if name.readlink() == Path(socket.name):
            name.unlink()
