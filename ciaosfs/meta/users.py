"""The rows of users. The rules are those of `ciaosfs/access/authority.py`, which alone changes them."""

from __future__ import annotations

from typing import Final, NamedTuple

from ciaosfs.meta.database import Database

_COLUMNS: Final = "user, name, folder, uid, gid, created_ns"
_INSERT: Final = f"INSERT INTO users ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
_GET: Final = f"SELECT {_COLUMNS} FROM users WHERE user = ?"
_NAMED: Final = f"SELECT {_COLUMNS} FROM users WHERE name = ?"
_AFTER: Final = f"SELECT {_COLUMNS} FROM users WHERE user > ? ORDER BY user LIMIT ?"
_COUNT: Final = "SELECT count(*) FROM users"
_HIGHEST: Final = "SELECT ifnull(max(user), 0) FROM users"
_DELETE: Final = "DELETE FROM users WHERE user = ?"


class UserRow(NamedTuple):
    """A row of `users`; see schema.py."""

    user_id: int
    name: str
    folder: bytes
    uid: int
    gid: int
    created_ns: int


class Users:
    """The users of one database."""

    def __init__(self, database: Database) -> None:
        self._execute = database.executor()

    def insert(self, row: UserRow) -> None:
        self._execute(_INSERT, row)

    def get(self, user_id: int) -> UserRow | None:
        row = self._execute(_GET, (user_id,)).get
        return None if row is None else UserRow._make(row)

    def named(self, name: str) -> UserRow | None:
        """The user of this name; reads every user until it is found."""
        row = self._execute(_NAMED, (name,)).get
        return None if row is None else UserRow._make(row)

    def after(self, user_id: int, limit: int) -> list[UserRow]:
        """Up to `limit` users with higher numbers, lowest first."""
        return [UserRow._make(row) for row in self._execute(_AFTER, (user_id, limit)).fetchall()]

    def count(self) -> int:
        count: int = self._execute(_COUNT).get
        return count

    def next_id(self) -> int:
        """A number that no user has. A former one may have had it: nothing that names a user outlives it."""
        highest: int = self._execute(_HIGHEST).get
        return highest + 1

    def delete(self, user_id: int) -> None:
        """Forget a user. Unknown: nothing."""
        self._execute(_DELETE, (user_id,))
