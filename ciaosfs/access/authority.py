"""The one owner of users and tokens: gives tokens, says whether one is good, and ends them.

A token is *live* until it expires or is revoked, or the token it was derived from is. Ending goes through memory first
(`living`): it holds at once, whatever the drives are doing. The rows follow past the gate, and whoever asked is answered
when they are durable.

Administrators act by a *grant* (`by`), within its scopes and its prefix; None is the owner of the store, who may do
everything. What is made by a grant ends with it, as what is derived from it does: taking a token back takes back all
that came of it. Of what a grant does not reach nobody learns whether it exists.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from ciaosfs.access import rules, secrets
from ciaosfs.access.grants import Grant
from ciaosfs.access.living import LiveTokens
from ciaosfs.access.paths import Names, from_stored, is_inside, parse_prefix, to_stored, to_text
from ciaosfs.access.rules import Terms
from ciaosfs.access.tokens import Issued, Token, User, token_of, user_of
from ciaosfs.base import clock, limits
from ciaosfs.base.errors import AccessError, UsageError
from ciaosfs.control.scopes import Scope
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.tokens import TokenRow, Tokens
from ciaosfs.meta.users import UserRow, Users

log = logging.getLogger(__name__)

_REFUSED: Final = "The token is not valid: it is unknown, has expired or was revoked. Ask for a new one."


class Authority:
    """The users and tokens of one open store; made by `open_authority`. All methods are for the loop."""

    def __init__(
        self,
        users: Users,
        tokens: Tokens,
        enter: Callable[[], Awaitable[None]],
        sync: Callable[[], Awaitable[None]],
    ) -> None:
        """`enter` returns when a change may join the open transaction, `sync` when all of it is durable (CiaosError)."""
        self._users = users
        self._tokens = tokens
        self._enter = enter
        self._sync = sync
        self._living = LiveTokens(tokens)
        self.is_live = self._living.is_live
        self.on_end = self._living.on_end

    # Is it good?

    def verify(self, secret: str) -> Grant:
        """What a secret allows. AccessError, always the same, for whatever is no live token."""
        claim = secrets.claim_of(secret)
        row = self._tokens.get(claim.token_id)
        is_true = secrets.is_true(claim, None if row is None else row.hash)
        if row is None or not is_true or not self.is_live(row.token_id):
            raise AccessError(_REFUSED)
        user = self._user_of(row)
        return Grant(
            row.token_id,
            user.name,
            from_stored(user.folder),
            from_stored(row.prefix),
            Scope(row.scopes),
            row.expires_ns,
        )

    # Tokens

    async def create(
        self,
        user: str,
        scopes: Scope,
        prefix: str = "",
        *,
        ttl_s: float | None = None,
        name: str = "",
        by: Grant | None = None,
    ) -> Issued:
        """Give `user` a token for what lies at `prefix` in the folder of the user; durable on return.

        `ttl_s` None: it never expires, or with the grant `by`. Raises UsageError for what cannot be, AccessError
        when `by` does not allow it. If it raises anything else, there may be a token whose secret nobody knows.
        """
        rules.check_label(name)
        await self._enter()
        row = self._user(user, by, or_own=True)
        now_ns = clock.now_ns()
        names = parse_prefix(prefix, from_stored(row.folder))
        expires_ns = rules.end_of(ttl_s, now_ns)
        terms = Terms(scopes, names, expires_ns or 0)
        if by is not None:
            terms = rules.narrow(rules.terms_of(by), scopes, names, expires_ns, now_ns)
        return await self._issue(row, 0 if by is None else by.token_id, terms, name, now_ns)

    async def derive(
        self,
        grant: Grant,
        scopes: Scope | None = None,
        prefix: str | None = None,
        *,
        ttl_s: float | None = None,
        name: str = "",
    ) -> Issued:
        """Give the holder of `grant` a token that allows no more, and ends with it; durable on return.

        None is as much as the grant has; `prefix` is relative to the folder of the user. Raises as `create`.
        """
        rules.check_label(name)
        await self._enter()
        self._check_live(grant)
        own = self._tokens.get(grant.token_id)
        assert own is not None, "a live token has a row"
        now_ns = clock.now_ns()
        names = None if prefix is None else parse_prefix(prefix, grant.folder)
        terms = rules.narrow(rules.terms_of(grant), scopes, names, rules.end_of(ttl_s, now_ns), now_ns)
        return await self._issue(self._user_of(own), own.token_id, terms, name, now_ns)

    async def revoke(self, token_id: int, by: Grant | None = None) -> tuple[Token, int]:
        """End a token and all that was derived from it: at once, and durable on return; and how many were live.

        By a grant, its own token and those below are reached, and with the scope admin all it could have given.
        Raises UsageError or AccessError for one that is not there, or not reached.
        """
        row = self._reached(token_id, by)
        user = self._user_of(row)
        ended = self._living.end(self._tokens.with_below(token_id))
        with trio.CancelScope(shield=True):
            await self._enter()
            below = self._tokens.with_below(token_id)
            ended += self._living.end(below)
            now_ns = clock.now_ns()
            self._tokens.revoke(below, now_ns)
            # The user may have been removed meanwhile, and the row with it.
            row = self._tokens.get(token_id) or row._replace(revoked_ns=now_ns)
        log.info("token revoked token=%d ended=%d", token_id, ended)
        await self._sync()
        return token_of(row, user.name, is_live=False), ended

    def show(self, token_id: int, by: Grant | None = None) -> Token:
        """One token; reached and raising as `revoke`."""
        return self._shown(self._reached(token_id, by))

    def tokens(
        self,
        after: int,
        limit: int,
        *,
        user: str | None = None,
        with_ended: bool = False,
        by: Grant | None = None,
    ) -> tuple[list[Token], int | None]:
        """Those of up to `limit` tokens after number `after` that are wanted and reached, and where to go on, if at all."""
        rows = self._tokens.after(after, limit)
        found = [self._shown(row) for row in rows if by is None or self._is_reached(row, by)]
        wanted = [
            token
            for token in found
            if (with_ended or self.is_live(token.token_id)) and user in (None, token.user)
        ]
        return wanted, rows[-1].token_id if len(rows) == limit else None

    # Users

    def check_new_user(self, name: str, folder: Names, by: Grant | None = None) -> None:
        """UsageError or AccessError unless there could be a user of this name with this folder."""
        rules.check_user_name(name)
        if by is not None:
            self._check_administrator(by)
            rules.check_reach(rules.terms_of(by), Scope.ADMIN, folder)
        if self._users.named(name) is not None:
            raise UsageError(f"There is a user {name} already: use another name.")
        if self._users.count() >= limits.USERS_MAX:
            raise UsageError(f"There are {limits.USERS_MAX} users, and no more can be: remove some.")

    async def add_user(self, name: str, folder: Names, uid: int, gid: int, by: Grant | None = None) -> User:
        """A user whose keys begin at `folder`, which the caller has made; durable on return. As `check_new_user`."""
        await self._enter()
        self.check_new_user(name, folder, by)
        row = UserRow(self._users.next_id(), name, to_stored(folder), uid, gid, clock.now_ns())
        self._users.insert(row)
        log.info("user added name=%s folder=%s", name, to_text(folder))
        await self._sync()
        return user_of(row)

    async def remove_user(self, name: str, by: Grant | None = None) -> tuple[User, int]:
        """Forget a user and end the user's tokens, with all below: at once, and durable on return.

        Returns who that was, and how many tokens ended. UsageError or AccessError when there is no such user, or when
        a token of the user is beyond the reach of `by`.
        """
        row = self._user(name, by)
        rows = self._tokens.of_user(row.user_id)
        if by is not None and not all(self._is_reached(token, by) for token in rows):
            raise AccessError(
                f"User {name} has a token that yours does not reach: ask the owner of the store."
            )
        ended = self._end_of_user(row.user_id)
        with trio.CancelScope(shield=True):
            await self._enter()
            if self._users.get(row.user_id) == row:  # else somebody was faster
                ended += self._end_of_user(row.user_id)
                self._living.forget(token.token_id for token in self._tokens.of_user(row.user_id))
                self._users.delete(row.user_id)
        log.info("user removed name=%s tokens_ended=%d", name, ended)
        await self._sync()
        return user_of(row), ended

    def users(self, after: int, limit: int, by: Grant | None = None) -> tuple[list[User], int | None]:
        """Those of up to `limit` users after number `after` that are reached, and where to go on, if at all."""
        rows = self._users.after(after, limit)
        found = [user_of(row) for row in rows if by is None or is_inside(from_stored(row.folder), by.prefix)]
        return found, rows[-1].user_id if len(rows) == limit else None

    async def run(self) -> None:
        """Beside requests: end what has expired, and forget what ended long ago; for ever."""
        await self._living.run(self._enter)

    # Inside

    async def _issue(self, user: UserRow, parent: int, terms: Terms, name: str, now_ns: int) -> Issued:
        """No await before the token is in the open transaction and live."""
        self._make_room(parent, now_ns)
        content = secrets.mint()
        row = TokenRow(
            self._tokens.take_id(),
            user.user_id,
            parent,
            secrets.hash_of(content),
            name,
            terms.scopes,
            to_stored(terms.prefix),
            now_ns,
            terms.expires_ns,
            0,
        )
        self._tokens.insert(row)
        self._living.add(row.token_id, row.expires_ns)
        log.info("token made token=%d user=%s parent=%d", row.token_id, user.name, parent)
        issued = Issued(token_of(row, user.name, is_live=True), secrets.to_text(row.token_id, content))
        await self._sync()
        return issued

    def _make_room(self, parent: int, now_ns: int) -> None:
        if len(self._living) >= limits.TOKENS_MAX:
            raise UsageError(f"{limits.TOKENS_MAX} tokens are live, and no more can be: revoke some.")
        if parent:
            top = self._top_of(parent)
            if sum(map(self.is_live, self._tokens.with_below(top))) > limits.TOKENS_BELOW_MAX:
                raise UsageError(
                    f"{limits.TOKENS_BELOW_MAX} live tokens come from token {top}, and no more can: revoke some."
                )
        if self._living.are_too_many:
            self._living.forget_some(now_ns)

    def _top_of(self, token_id: int) -> int:
        """The token of the owner that a token came from."""
        while (row := self._tokens.get(token_id)) is not None and row.parent:
            token_id = row.parent
        return token_id

    def _end_of_user(self, user_id: int) -> int:
        tokens = self._tokens.of_user(user_id)
        return sum(self._living.end(self._tokens.with_below(token.token_id)) for token in tokens)

    def _user(self, name: str, by: Grant | None, *, or_own: bool = False) -> UserRow:
        """The user of this name whom `by` reaches: the folder is inside its prefix, or with `or_own` it is its own user."""
        row = self._users.named(name)
        if by is not None:
            self._check_administrator(by)
            is_own = or_own and name == by.user
            if row is None or not (is_own or is_inside(from_stored(row.folder), by.prefix)):
                raise AccessError(f"There is no user {name!r} that this token reaches.")
        if row is None:
            raise UsageError(f"There is no user {name!r}: 'ciaosfs user list' shows those there are.")
        return row

    def _user_of(self, row: TokenRow) -> UserRow:
        user = self._users.get(row.user_id)
        assert user is not None, "the tokens of a user go with the user"
        return user

    def _shown(self, row: TokenRow) -> Token:
        return token_of(row, self._user_of(row).name, is_live=self.is_live(row.token_id))

    def _reached(self, token_id: int, by: Grant | None) -> TokenRow:
        row = self._tokens.get(token_id)
        if by is not None:
            self._check_live(by)
            is_own = token_id in self._tokens.with_below(by.token_id)
            if row is None or not (is_own or self._is_reached(row, by)):
                raise AccessError(f"There is no token {token_id} that this token reaches.")
        if row is None:
            raise UsageError(
                f"There is no token {token_id}: 'ciaosfs token list --all' shows those there are."
            )
        return row

    def _is_reached(self, row: TokenRow, by: Grant) -> bool:
        """Whether an administrator's grant could have given this token."""
        return (
            Scope.ADMIN in by.scopes
            and Scope(row.scopes) in by.scopes
            and is_inside(from_stored(row.prefix), by.prefix)
        )

    def _check_live(self, grant: Grant) -> None:
        if not self.is_live(grant.token_id):
            raise AccessError(_REFUSED)

    def _check_administrator(self, grant: Grant) -> None:
        self._check_live(grant)
        rules.check_reach(rules.terms_of(grant), Scope.ADMIN, grant.prefix)


@asynccontextmanager
async def open_authority(
    meta: Metadata, enter: Callable[[], Awaitable[None]], sync: Callable[[], Awaitable[None]]
) -> AsyncIterator[Authority]:
    """The authority over the users and tokens of an open store, at work; to be left before the store is closed.

    `enter` and `sync` as for `Authority`.
    """
    authority = Authority(meta.users, meta.tokens, enter, sync)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(authority.run)
        try:
            yield authority
        finally:
            nursery.cancel_scope.cancel()
