"""Keys page by page, and what is known of many of them at once."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from ciaosfs.base import limits
from ciaosfs.base.errors import AccessError, FsError
from ciaosfs.client.failures import as_python
from ciaosfs.client.hold import Hold
from ciaosfs.client.info import ObjectInfo, info_of
from ciaosfs.client.session import Session
from ciaosfs.client.wire import Wire

AHEAD_REQUESTS = 8
AHEAD_BYTES = 16 * limits.KIB
"""Of keys asked for ahead: what fits into a socket for certain, for the daemon does not read while it answers."""
_NOT_TOLD = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL),
    *(errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG),
)


class Listing:
    """The keys that begin with a prefix, in the order of their bytes. A context manager, for one thread at a time.

    It keeps a connection on which the daemon remembers how far it is; when that breaks, it goes on after the last key.
    """

    def __init__(self, session: Session, prefix: str, *, is_flat: bool) -> None:
        """`is_flat`: only keys in the folder of the prefix, and the folders in it, with a slash at their end."""
        self._session = session
        self._prefix = prefix
        self._question: dict[str, Any] = {"prefix": session.full_key(prefix), "flat": is_flat}
        self._hold = Hold(session, self._forget)
        self._cursor: int | None = None
        self._is_over = False
        self._denied = ""

    def page(self) -> list[str]:
        """The next keys; none when there are no more. Then PermissionError is raised if some folders may not be listed."""
        with as_python(self._prefix):
            while not self._is_over:
                if keys := self._hold.again(self._next):
                    return [self._session.own_key(key) for key in keys]
            if self._denied:
                raise AccessError(f"Not everything was listed: {self._denied}")
            return []

    def close(self) -> None:
        """Let go of the connection; without a word where the daemon has more to tell, for closing never waits."""
        self._is_over = True
        if self._cursor is None:
            self._hold.let_go()
        else:
            self._hold.cut()

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forget(self) -> None:
        self._cursor = None

    def _next(self, wire: Wire) -> list[str]:
        where = self._question if self._cursor is None else {"cursor": self._cursor}
        try:
            answer = wire.call("object-list", limit=limits.CLIENT_KEYS_PAGE, **where)
        except FsError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            answer = {"keys": [], "denied": [], "cursor": None}  # there is no such folder, and so no key
        keys: list[str] = answer["keys"]
        for denied in answer["denied"]:
            self._denied = self._denied or denied["message"]
        self._cursor = answer["cursor"]
        self._is_over = self._cursor is None
        if keys:
            self._question["after"] = keys[-1]
        return keys


def describe_all(session: Session, keys: Sequence[str]) -> list[ObjectInfo | None]:
    """What is known of each; None for one that is no object, or none that may be read."""

    def attempt(wire: Wire) -> list[ObjectInfo | None]:
        found: list[ObjectInfo | None] = []
        sent, ahead_bytes = 0, 0
        while len(found) < len(keys):
            while sent < len(keys) and sent - len(found) < AHEAD_REQUESTS:
                length = len(session.full_key(keys[sent]).encode(errors="surrogateescape"))
                if ahead_bytes and ahead_bytes + length > AHEAD_BYTES // 6:  # each byte may be written as six
                    break
                wire.send("object-stat", key=session.full_key(keys[sent]))
                ahead_bytes += length
                sent += 1
            key = keys[len(found)]
            found.append(_described(wire, key))
            ahead_bytes -= len(session.full_key(key).encode(errors="surrogateescape"))
        return found

    return session.carry_out(attempt)


def _described(wire: Wire, key: str) -> ObjectInfo | None:
    try:
        return info_of(key, wire.receive())
    except FsError as error:
        if error.errno in _NOT_TOLD:
            return None
        raise
