"""The invariants of users and tokens, as sentences and the queries that find what breaks them; see `integrity`."""

from __future__ import annotations

from typing import Final

from ciaosfs.base import limits
from ciaosfs.meta.counters import Counter

_SCOPES: Final = 15  # control.scopes.Scope, all of them


def _is_path(column: str) -> str:
    """Whether a path from the root is well formed, of bytes."""
    return (
        f"(length({column}) BETWEEN 1 AND {limits.ACCESS_PATH_BYTES_MAX} AND substr({column}, 1, 1) = x'2f'"
        f" AND instr({column}, x'2f2f') = 0 AND ({column} = x'2f' OR substr({column}, -1) <> x'2f'))"
    )


def _is_inside(path: str, prefix: str) -> str:
    """Whether one path from the root is another one, or below it."""
    return (
        f"({prefix} = x'2f' OR {path} = {prefix} OR substr({path}, 1, length({prefix})) = {prefix}"
        f" AND substr({path}, length({prefix}) + 1, 1) = x'2f')"
    )


CHECKS: Final = (
    (
        "User {0} has an impossible name, folder or owner.",
        "SELECT user FROM users WHERE user < 1 OR uid < 0 OR gid < 0"
        f" OR length(name) NOT BETWEEN 1 AND {limits.ACCESS_NAME_CHARACTERS_MAX} OR NOT {_is_path('folder')}",
    ),
    (
        "Users {0} and {1} have one name.",
        "SELECT min(user), max(user) FROM users GROUP BY name HAVING count(*) > 1",
    ),
    (
        "Token {0} belongs to user {1}, which does not exist.",
        "SELECT token, user FROM tokens WHERE user NOT IN (SELECT user FROM users)",
    ),
    (
        "Token {0} has an impossible hash, name, scope, prefix or time.",
        "SELECT token FROM tokens WHERE token < 1 OR parent < 0 OR length(hash) <> 32 OR expires_ns < 0"
        f" OR length(name) > {limits.ACCESS_NAME_CHARACTERS_MAX} OR scopes NOT BETWEEN 1 AND {_SCOPES}"
        f" OR revoked_ns < 0 OR NOT {_is_path('prefix')}",
    ),
    (
        "Token {0} is good for more than the folder of user {1}.",
        "SELECT tokens.token, tokens.user FROM tokens JOIN users ON users.user = tokens.user"
        f" WHERE {_is_path('prefix')} AND {_is_path('folder')} AND NOT {_is_inside('prefix', 'folder')}",
    ),
    (
        "Token {0} was derived from token {1}, which does not exist before it.",
        "SELECT token, parent FROM tokens WHERE parent > 0"
        " AND (parent >= token OR parent NOT IN (SELECT token FROM tokens))",
    ),
    (
        "Token {0} allows more than token {1}, from which it was derived.",
        "SELECT one.token, one.parent FROM tokens AS one JOIN tokens AS above ON above.token = one.parent"
        f" WHERE one.parent > 0 AND (one.scopes & ~above.scopes & {_SCOPES} <> 0"
        " OR above.expires_ns > 0 AND (one.expires_ns = 0 OR one.expires_ns > above.expires_ns)"
        f" OR {_is_path('one.prefix')} AND NOT {_is_inside('one.prefix', 'above.prefix')})",
    ),
    (
        "Token {0} was not revoked, and token {1}, from which it was derived, was.",
        "SELECT one.token, one.parent FROM tokens AS one JOIN tokens AS above ON above.token = one.parent"
        " WHERE one.parent > 0 AND one.revoked_ns = 0 AND above.revoked_ns > 0",
    ),
    (
        "The next token would be {0} and token {1} exists.",
        "SELECT next, highest FROM (SELECT ifnull((SELECT value FROM counters"
        f" WHERE counter = {Counter.NEXT_TOKEN.value}), 1) AS next,"
        " (SELECT max(token) FROM tokens) AS highest) WHERE next <= highest",
    ),
)
