"""The rows of tokens. The rules are those of `ciaosfs/access/authority.py`, which alone changes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ciaosfs.meta.counters import Counter, Counters
from ciaosfs.meta.database import Database

_COLUMNS: Final = "token, user, parent, hash, name, scopes, prefix, created_ns, expires_ns, revoked_ns"
_INSERT: Final = f"INSERT INTO tokens ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_GET: Final = f"SELECT {_COLUMNS} FROM tokens WHERE token = ?"
_AFTER: Final = f"SELECT {_COLUMNS} FROM tokens WHERE token > ? ORDER BY token LIMIT ?"
_OF_USER: Final = f"SELECT {_COLUMNS} FROM tokens WHERE user = ? ORDER BY token"
_LIVE: Final = (
    "SELECT token, expires_ns FROM tokens WHERE revoked_ns = 0 AND (expires_ns = 0 OR expires_ns > ?)"
)
_COUNT: Final = "SELECT count(*) FROM tokens"
_WITH_BELOW: Final = (
    "WITH RECURSIVE below(token) AS (SELECT ?1 UNION"
    " SELECT tokens.token FROM below JOIN tokens ON tokens.parent = below.token AND tokens.parent > 0)"
    " SELECT token FROM below"
)
_ENDED: Final = (
    "SELECT token, CASE WHEN expires_ns = 0 OR revoked_ns BETWEEN 1 AND expires_ns THEN revoked_ns ELSE expires_ns END"
    " AS ended_ns FROM tokens WHERE revoked_ns > 0 OR expires_ns BETWEEN 1 AND ? ORDER BY ended_ns"
)
_REVOKE: Final = "UPDATE tokens SET revoked_ns = ? WHERE token = ? AND revoked_ns = 0"
_DELETE: Final = "DELETE FROM tokens WHERE token = ?"


class TokenRow(NamedTuple):
    """A row of `tokens`; see schema.py."""

    token_id: int
    user_id: int
    parent: int
    hash: bytes
    name: str
    scopes: int
    prefix: bytes
    created_ns: int
    expires_ns: int
    revoked_ns: int


class Tokens:
    """The tokens of one database: at most limits.TOKENS_MAX + TOKENS_ENDED_MAX, so reading all takes milliseconds."""

    def __init__(self, database: Database, counters: Counters) -> None:
        self._execute = database.executor()
        self._counters = counters

    def take_id(self) -> int:
        """A number that no token ever had."""
        taken = self._counters.values[Counter.NEXT_TOKEN] or 1
        self._counters.values[Counter.NEXT_TOKEN] = taken + 1
        return taken

    def insert(self, row: TokenRow) -> None:
        self._execute(_INSERT, row)

    def get(self, token_id: int) -> TokenRow | None:
        row = self._execute(_GET, (token_id,)).get
        return None if row is None else TokenRow._make(row)

    def after(self, token_id: int, limit: int) -> list[TokenRow]:
        """Up to `limit` tokens with higher numbers, lowest first."""
        return [TokenRow._make(row) for row in self._execute(_AFTER, (token_id, limit)).fetchall()]

    def of_user(self, user_id: int) -> list[TokenRow]:
        """Every token of a user, those that have ended, too."""
        return [TokenRow._make(row) for row in self._execute(_OF_USER, (user_id,)).fetchall()]

    def live(self, now_ns: int) -> dict[int, int]:
        """The tokens that are live at this moment, and when they expire (0: never)."""
        return dict(self._execute(_LIVE, (now_ns,)).fetchall())

    def count(self) -> int:
        """All of them, those that have ended, too."""
        count: int = self._execute(_COUNT).get
        return count

    def with_below(self, token_id: int) -> list[int]:
        """A token and everything that was derived from it, from what was, and so on."""
        return [row[0] for row in self._execute(_WITH_BELOW, (token_id,)).fetchall()]

    def ended(self, now_ns: int) -> list[tuple[int, int]]:
        """The tokens that have ended, with the moment, the first to end first."""
        return [(row[0], row[1]) for row in self._execute(_ENDED, (now_ns,)).fetchall()]

    def revoke(self, token_ids: Iterable[int], now_ns: int) -> None:
        """Note for each that it was revoked at this moment, unless it was before."""
        for token_id in token_ids:
            self._execute(_REVOKE, (now_ns, token_id))

    def delete(self, token_id: int) -> None:
        """Forget a token. Unknown: nothing."""
        self._execute(_DELETE, (token_id,))
