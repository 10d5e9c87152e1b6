"""A grant: what a valid token lets its holder do, and where. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ciaosfs.control.scopes import Scope


@dataclass(frozen=True, slots=True)
class Grant:
    """What the token `token_id` of `user` allows.

    `prefix` are the names on the way from the root of the store to the only part of the tree it is good for, the
    user's folder included; `folder` are those to the user's folder, where keys begin. `expires_ns` is in nanoseconds
    since the epoch, 0: never. Whether it has been revoked since only `Authority` knows.
    """

    token_id: int
    user: str
    folder: tuple[bytes, ...]
    prefix: tuple[bytes, ...]
    scopes: Scope
    expires_ns: int
