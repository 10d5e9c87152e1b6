"""The rows of users and tokens: found, revoked with what is below, forgotten, and numbers that do not come again."""

from __future__ import annotations

from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import commit, give_token, give_user


def test_users_are_found_by_name_and_number(meta: Metadata) -> None:
    ann = give_user(meta)
    bob = give_user(meta, "bob", b"/b\xff")
    assert (ann, bob, meta.users.count()) == (1, 2, 2)
    named, numbered = meta.users.named("bob"), meta.users.get(bob)
    assert named is not None and named == numbered and named.folder == b"/b\xff"
    assert [user.name for user in meta.users.after(0, 9)] == ["ann", "bob"]
    assert [user.name for user in meta.users.after(ann, 9)] == ["bob"]
    meta.users.delete(ann)
    assert (meta.users.named("ann"), meta.users.get(ann)) == (None, None)


def test_what_is_below_a_token_is_found_and_revoked_with_it(meta: Metadata) -> None:
    ann = give_user(meta)
    top = give_token(meta, ann)
    child = give_token(meta, ann, top)
    grandchild = give_token(meta, ann, child)
    other = give_token(meta, ann)
    assert meta.tokens.with_below(top) == [top, child, grandchild]
    assert meta.tokens.with_below(child) == [child, grandchild]
    assert meta.tokens.with_below(other) == [other]
    meta.tokens.revoke(meta.tokens.with_below(child), 5)
    meta.tokens.revoke(meta.tokens.with_below(top), 7)
    revoked = {row.token_id: row.revoked_ns for row in meta.tokens.of_user(ann)}
    assert revoked == {top: 7, child: 5, grandchild: 5, other: 0}
    assert meta.tokens.live(0) == {other: 0}


def test_tokens_end_when_the_first_of_their_two_ends_has_come(meta: Metadata) -> None:
    ann = give_user(meta)
    expired = give_token(meta, ann, expires_ns=10)
    revoked = give_token(meta, ann, expires_ns=30, revoked_ns=20)
    late = give_token(meta, ann, expires_ns=15, revoked_ns=20)
    alive = give_token(meta, ann, expires_ns=40)
    assert meta.tokens.ended(39) == [(expired, 10), (late, 15), (revoked, 20)]
    assert meta.tokens.ended(40)[-1] == (alive, 40)
    assert (meta.tokens.live(39), meta.tokens.live(40)) == ({alive: 40}, {})


def test_a_number_is_never_given_again(meta: Metadata) -> None:
    """Also when the token with the highest one was forgotten, and by another opening."""
    first = give_token(meta, give_user(meta))
    commit(meta)
    meta.tokens.delete(first)
    commit(meta)
    path = meta.database.path
    meta.close()
    again = Metadata.open(path)
    assert again.tokens.take_id() == first + 1
    again.close()
