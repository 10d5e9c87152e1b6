"""Tokens and users as they are told of: everything but the secret and its hash."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ciaosfs.access.paths import Names, from_stored
from ciaosfs.control.scopes import Scope
from ciaosfs.meta.tokens import TokenRow
from ciaosfs.meta.users import UserRow


class TokenState(StrEnum):
    """Whether a token is good for anything, and why not."""

    LIVE = "live"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Token:
    """What may be known of a token; times in nanoseconds since the epoch, 0: never. `parent` 0: the owner made it."""

    token_id: int
    user: str
    parent: int
    name: str
    scopes: Scope
    prefix: Names
    created_ns: int
    expires_ns: int
    revoked_ns: int
    state: TokenState


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that was just made, and its secret, which nobody can be told again."""

    token: Token
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class User:
    """Who may have tokens; `uid` and `gid` are those the folder was made for."""

    name: str
    folder: Names
    uid: int
    gid: int
    created_ns: int


def token_of(row: TokenRow, user: str, *, is_live: bool) -> Token:
    """What may be known of a row."""
    state = TokenState.LIVE
    if not is_live:
        is_revoked = row.revoked_ns and not 0 < row.expires_ns < row.revoked_ns
        state = TokenState.REVOKED if is_revoked else TokenState.EXPIRED
    return Token(
        row.token_id,
        user,
        row.parent,
        row.name,
        Scope(row.scopes),
        from_stored(row.prefix),
        row.created_ns,
        row.expires_ns,
        row.revoked_ns,
        state,
    )


def user_of(row: UserRow) -> User:
    """What may be known of a row."""
    return User(row.name, from_stored(row.folder), row.uid, row.gid, row.created_ns)
