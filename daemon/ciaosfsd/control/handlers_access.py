"""What can be asked about users and tokens. The rules are those of `access/authority.py`; here are words and folders."""

from __future__ import annotations

import pwd
from collections.abc import Awaitable, Callable
from typing import Any

from ciaosfs.access.authority import Authority
from ciaosfs.access.grants import Grant
from ciaosfs.access.paths import Names, parse_folder, to_text
from ciaosfs.access.tokens import Issued, Token, User
from ciaosfs.base import limits
from ciaosfs.base.errors import AccessError, UsageError
from ciaosfs.control.scopes import Scope, parse_scopes
from ciaosfs.drive.workers import Workers
from ciaosfsd.control.call import Call, Caller, Operation
from ciaosfsd.control.needs import ADMIN, TOKEN

MakeFolder = Callable[[Names, int, int], Awaitable[bool]]
"""Names, uid, gid -> whether it was made, or was there; see `folders.make_folder`."""
_NUMBER_MAX = (1 << 63) - 1
_ID_MAX = (1 << 32) - 2
"""Of a user or group: the highest number means "none"."""


class AccessHandlers:
    """The handlers of one mounted store. `workers` look for users of the system, which may ask a network."""

    def __init__(self, authority: Authority, make_folder: MakeFolder, workers: Workers) -> None:
        self._authority = authority
        self._make_folder = make_folder
        self._workers = workers

    def operations(self) -> tuple[Operation, ...]:
        return (
            Operation("user-add", ADMIN, self.add_user),
            Operation("user-list", ADMIN, self.list_users),
            Operation("user-remove", ADMIN, self.remove_user),
            Operation("token-create", ADMIN, self.create_token),
            Operation("token-list", ADMIN, self.list_tokens),
            Operation("token-show", TOKEN, self.show_token),
            Operation("token-revoke", TOKEN, self.revoke_token),
            Operation("token-derive", TOKEN, self.derive_token),
        )

    async def add_user(self, call: Call) -> dict[str, Any]:
        """A user, and the folder unless it is there. Whose it becomes the owner of the store may say with `uid`, `gid`."""
        name = _take_text(call, "name")
        folder = parse_folder(_text(call, "folder") or f"/{name}")
        by = _grant(call)
        self._authority.check_new_user(name, folder, by)
        uid, gid = await self._owner_of_folder(call, name)
        made = await self._make_folder(folder, uid, gid)
        user = await self._authority.add_user(name, folder, uid, gid, by)
        return {"user": user_fields(user), "made": made}

    async def list_users(self, call: Call) -> dict[str, Any]:
        """A page of users, and after which number the next one begins."""
        users, after = self._authority.users(_after(call), limits.CONTROL_PAGE_ITEMS, _grant(call))
        return {"users": [user_fields(user) for user in users], "after": after}

    async def remove_user(self, call: Call) -> dict[str, Any]:
        """Forget a user and end all tokens of the user. The folder stays."""
        user, ended = await self._authority.remove_user(_take_text(call, "name"), _grant(call))
        return {"user": user_fields(user), "tokens_ended": ended}

    async def create_token(self, call: Call) -> dict[str, Any]:
        """A token for a user; the only time that its secret is told."""
        scopes = _scopes(call)
        if scopes is None:
            raise UsageError("A token needs at least one scope: read, write, delete or admin.")
        issued = await self._authority.create(
            _take_text(call, "user"),
            scopes,
            _text(call, "prefix") or "",
            ttl_s=_ttl_s(call),
            name=_text(call, "name") or "",
            by=_grant(call),
        )
        return issued_fields(issued)

    async def list_tokens(self, call: Call) -> dict[str, Any]:
        """A page of tokens, of `user` alone if given, with `all` those that have ended, too; and where the next begins."""
        tokens, after = self._authority.tokens(
            _after(call),
            limits.CONTROL_PAGE_ITEMS,
            user=_text(call, "user"),
            with_ended=call.arguments.get("all") is True,
            by=_grant(call),
        )
        return {"tokens": [token_fields(token) for token in tokens], "after": after}

    async def show_token(self, call: Call) -> dict[str, Any]:
        """Token `id`, or the one the caller is judged by."""
        by = _grant(call)
        token_id = _number(call, "id") or (by.token_id if by is not None else None)
        if token_id is None:
            raise UsageError("Which token? Give its number, or a token to be judged by.")
        return {"token": token_fields(self._authority.show(token_id, by))}

    async def revoke_token(self, call: Call) -> dict[str, Any]:
        """End token `id` and all that was derived from it, for good."""
        token_id = _number(call, "id")
        if token_id is None:
            raise UsageError("The number of the token is missing.")
        token, ended = await self._authority.revoke(token_id, _grant(call))
        return {"token": token_fields(token), "ended": ended}

    async def derive_token(self, call: Call) -> dict[str, Any]:
        """A token that allows no more than the caller's, and ends with it."""
        grant = _grant(call)
        if grant is None:
            raise UsageError(
                "From which token? Give the one to derive from: the owner of the store has none."
            )
        issued = await self._authority.derive(
            grant,
            _scopes(call),
            _text(call, "prefix"),
            ttl_s=_ttl_s(call),
            name=_text(call, "name") or "",
        )
        return issued_fields(issued)

    async def _owner_of_folder(self, call: Call, name: str) -> tuple[int, int]:
        """Given by the owner of the store, else the system's user of that name, else who asks."""
        caller = call.caller
        uid, gid = _number(call, "uid", 0, _ID_MAX), _number(call, "gid", 0, _ID_MAX)
        if caller.grant is not None:
            if uid not in (None, caller.uid) or gid not in (None, caller.gid):
                raise AccessError(
                    "Only the owner of the store makes folders for others: leave --uid, --gid out."
                )
            return caller.uid, caller.gid
        found = await self._workers.run(_system_user, name if uid is None else uid)
        return _first(uid, found and found[0], caller.uid), _first(gid, found and found[1], caller.gid)


def user_fields(user: User) -> dict[str, Any]:
    """One user as the control socket shows it."""
    return {
        "name": user.name,
        "folder": to_text(user.folder),
        "uid": user.uid,
        "gid": user.gid,
        "created_ns": user.created_ns,
    }


def token_fields(token: Token) -> dict[str, Any]:
    """One token as the control socket shows it."""
    return {
        "id": token.token_id,
        "user": token.user,
        "parent": token.parent,
        "name": token.name,
        "scopes": token.scopes.names,
        "prefix": to_text(token.prefix),
        "created_ns": token.created_ns,
        "expires_ns": token.expires_ns,
        "revoked_ns": token.revoked_ns,
        "state": str(token.state),
    }


def issued_fields(issued: Issued) -> dict[str, Any]:
    return {"token": token_fields(issued.token), "secret": issued.secret}


def _grant(call: Call) -> Grant | None:
    """By whose rules; None is the owner of the store."""
    caller: Caller = call.caller
    assert caller.is_owner or caller.grant is not None, "a need lets nobody else pass"
    return caller.grant


def _first(*numbers: int | None) -> int:
    return next(number for number in numbers if number is not None)


def _system_user(who: str | int) -> tuple[int, int] | None:
    """uid and gid of a user of this machine; None when there is none. Blocking."""
    try:
        found = pwd.getpwnam(who) if isinstance(who, str) else pwd.getpwuid(who)
    except KeyError:
        return None
    return found.pw_uid, found.pw_gid


def _text(call: Call, name: str) -> str | None:
    value = call.arguments.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"The argument {name} must be text.")
    return value


def _take_text(call: Call, name: str) -> str:
    value = _text(call, name)
    if not value:
        raise UsageError(f"The argument {name} is missing.")
    return value


def _number(call: Call, name: str, low: int = 1, high: int = _NUMBER_MAX) -> int | None:
    value = call.arguments.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(f"The argument {name} must be a number from {low} to {high}.")
    return value


def _after(call: Call) -> int:
    return _number(call, "after", 0) or 0


def _scopes(call: Call) -> Scope | None:
    value = call.arguments.get("scopes")
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UsageError("The argument scopes must be a list of names.")
    return parse_scopes(value)


def _ttl_s(call: Call) -> float | None:
    value = call.arguments.get("ttl_s")
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UsageError("The argument ttl_s must be a number of seconds.")
    return float(min(value, 1e18))
