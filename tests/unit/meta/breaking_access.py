"""Changes that break one invariant of users and tokens each; `test_integrity` has the sentences."""

from __future__ import annotations

from ciaosfs.meta.counters import Counter
from tests.unit.meta.sound import Sound
from tests.unit.meta.support import give_token, give_user


def impossible_user(s: Sound) -> None:
    s.sql("UPDATE users SET folder = ?", b"ann")


def user_twice(s: Sound) -> None:
    give_user(s.meta)


def token_of_nobody(s: Sound) -> None:
    s.sql("UPDATE tokens SET user = 4711 WHERE token = ?", s.child)


def impossible_token(s: Sound) -> None:
    s.sql("UPDATE tokens SET hash = ? WHERE token = ?", b"short", s.child)


def token_beyond_the_folder(s: Sound) -> None:
    give_token(s.meta, s.user, prefix=b"/anna")


def child_of_nobody(s: Sound) -> None:
    s.meta.counters.values[Counter.NEXT_TOKEN] = 4712
    give_token(s.meta, s.user, 4711)


def child_of_later(s: Sound) -> None:
    s.sql("UPDATE tokens SET parent = ? WHERE token = ?", give_token(s.meta, s.user), s.token)


def child_with_more_scopes(s: Sound) -> None:
    s.sql("UPDATE tokens SET scopes = 9 WHERE token = ?", s.child)


def child_beyond_the_prefix(s: Sound) -> None:
    s.sql("UPDATE tokens SET prefix = ? WHERE token = ?", b"/ann/belo", s.token)


def child_outlives(s: Sound) -> None:
    s.sql("UPDATE tokens SET expires_ns = 0 WHERE token = ?", s.child)


def child_survives(s: Sound) -> None:
    s.meta.tokens.revoke([s.token], 5)


def token_number_given_again(s: Sound) -> None:
    s.meta.counters.values[Counter.NEXT_TOKEN] = s.child
