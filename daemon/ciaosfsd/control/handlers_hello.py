"""How a client begins: it asks what it speaks to, and says by which token it wants to be judged."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from ciaosfs import __version__
from ciaosfs.access.grants import Grant
from ciaosfs.base import limits
from ciaosfs.base.config import StoreConfig
from ciaosfs.base.errors import UsageError
from ciaosfs.control.messages import VERSION
from ciaosfsd.control.call import Call, Operation
from ciaosfsd.control.needs import ANYBODY


class HelloHandlers:
    """The handlers of one mounted store. `others` are the rows besides these, `verify` gives the grant of a secret."""

    def __init__(
        self,
        config: StoreConfig,
        mountpoint: os.PathLike[str],
        others: Iterable[Operation],
        verify: Callable[[str], Grant],
        access: str = "posix",
    ) -> None:
        self._config = config
        self._mountpoint = os.fspath(mountpoint)
        self._others = tuple(others)
        self._verify = verify
        self._access = access

    def operations(self) -> tuple[Operation, ...]:
        return (Operation("hello", ANYBODY, self.hello), Operation("auth", ANYBODY, self.auth))

    async def hello(self, call: Call) -> dict[str, Any]:
        """What this daemon is, what it can do and who may ask for it, and its bounds in bytes and seconds."""
        rows = (*self.operations(), *self._others)
        return {
            "protocol": VERSION,
            "version": __version__,
            "store": str(uuid.UUID(bytes=self._config.store_id)),
            "mountpoint": self._mountpoint,
            "access": self._access,
            "operations": {row.name: str(row.need) for row in sorted(rows, key=lambda row: row.name)},
            "limits": {
                "request": limits.CONTROL_MESSAGE_BYTES_MAX,
                "reply": limits.CONTROL_REPLY_BYTES_MAX,
                "body": limits.CONTROL_BODY_BYTES_MAX,
                "kept": limits.CONTROL_KEPT_MAX,
                "idle_s": limits.CONTROL_IDLE_S,
                "arrival_s": limits.CONTROL_ARRIVAL_S,
            },
        }

    async def auth(self, call: Call) -> dict[str, Any]:
        """From now on this connection is judged by `token`; without one, as if none had been given.

        What was kept open under another token is closed.
        """
        secret = call.arguments.get("token")
        if secret is not None and not isinstance(secret, str):
            raise UsageError("The token must be text.")
        grant = None if secret is None else self._verify(secret)
        await call.connection.close()
        call.connection.given = grant
        if grant is None:
            return {}
        return {
            "user": grant.user,
            "scopes": grant.scopes.names,
            "folder": _path(grant.folder),
            "prefix": _path(grant.prefix),
            "expires_ns": grant.expires_ns,
        }


def _path(names: Iterable[bytes]) -> str:
    return "/" + "/".join(map(os.fsdecode, names))
