"""Tokens are given, verified, narrowed, revoked, expire and are forgotten; users come and go with theirs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock, trio_test

from ciaosfs.access.authority import Authority
from ciaosfs.access.grants import Grant
from ciaosfs.access.paths import from_stored
from ciaosfs.access.tokens import Token, TokenState
from ciaosfs.base import limits
from ciaosfs.base.errors import AccessError, UsageError
from ciaosfs.control.scopes import Scope
from ciaosfs.meta.metadata import Metadata
from tests.unit.access.conftest import START_NS, Opener

ALL = Scope.READ | Scope.WRITE | Scope.DELETE | Scope.ADMIN
DAY_S = 86400.0


async def with_users(authority: Authority, names: Sequence[str] = ("ann", "bob")) -> None:
    for name in names:
        await authority.add_user(name, (name.encode(),), 1000, 1000)


async def grant(authority: Authority, user: str, scopes: Scope, prefix: str = "") -> Grant:
    return authority.verify((await authority.create(user, scopes, prefix)).secret)


def is_good(authority: Authority, secret: str) -> bool:
    try:
        authority.verify(secret)
    except AccessError:
        return False
    return True


def listed(authority: Authority, **wanted: bool) -> list[Token]:
    return authority.tokens(0, 100, **wanted)[0]  # type: ignore[arg-type]


@trio_test
async def test_a_secret_gives_what_was_given(authority_over: Opener, autojump_clock: MockClock) -> None:
    async with authority_over() as authority:
        await with_users(authority)
        issued = await authority.create("ann", Scope.READ | Scope.WRITE, "models", ttl_s=60, name="laptop")
        assert authority.verify(issued.secret) == Grant(
            issued.token.token_id,
            "ann",
            (b"ann",),
            (b"ann", b"models"),
            Scope.READ | Scope.WRITE,
            START_NS + 60 * 10**9,
        )
        assert issued.token == authority.show(issued.token.token_id) == listed(authority)[0]
        assert issued.secret not in repr(issued)


@trio_test
async def test_whatever_is_wrong_the_sentence_is_one(
    authority_over: Opener, autojump_clock: MockClock
) -> None:
    """A wrong secret, one of an unknown token, an expired one, a revoked one, a child of that, rubbish."""
    async with authority_over() as authority:
        await with_users(authority)
        good = (await authority.create("ann", ALL)).secret
        _, number, text = good.split("_", 2)
        revoked = await authority.create("ann", ALL)
        child = await authority.derive(authority.verify(revoked.secret))
        expired = await authority.create("ann", ALL, ttl_s=1)
        await authority.revoke(revoked.token.token_id)
        await trio.sleep(1)
        wrong = [
            *(revoked.secret, child.secret, expired.secret, "", "rubbish", "é" * 99, good + "x"),
            f"ciaosfs_4711_{text}",
            f"ciaosfs_{expired.token.token_id}_{text}",
            f"ciaosfs_{number}_{'A' * 43}",
        ]
        sentences = set()
        for secret in wrong:
            with pytest.raises(AccessError) as refused:
                authority.verify(secret)
            sentences.add(str(refused.value))
        assert len(sentences) == 1 and is_good(authority, good)
        assert not any(secret and secret in sentences.copy().pop() for secret in wrong)


@trio_test
async def test_a_token_expires_by_the_clock_and_is_told_within_a_second(
    authority_over: Opener, autojump_clock: MockClock
) -> None:
    async with authority_over() as authority:
        await with_users(authority)
        ended: list[tuple[int, float]] = []
        authority.on_end(lambda token_id: ended.append((token_id, trio.current_time())))
        begin_s = trio.current_time()
        short = await authority.create("ann", ALL, ttl_s=10)
        child = await authority.derive(authority.verify(short.secret))
        long = await authority.create("ann", ALL, ttl_s=20)
        ever = await authority.create("ann", ALL)
        await trio.sleep_until(begin_s + 9.9)
        assert is_good(authority, short.secret) and ended == []
        await trio.sleep_until(begin_s + 10.01)
        assert not authority.is_live(short.token.token_id), "it is refused from the very moment"
        await trio.sleep_until(begin_s + 30)
        assert [token_id for token_id, _ in ended] == [each.token.token_id for each in (short, child, long)]
        assert all(at_s <= begin_s + due + 1 for (_, at_s), due in zip(ended, (10, 10, 20), strict=True))
        assert is_good(authority, ever.secret)
        assert authority.show(child.token.token_id).state is TokenState.EXPIRED


@trio_test
async def test_what_came_of_a_token_ends_with_it(authority_over: Opener, autojump_clock: MockClock) -> None:
    async with authority_over() as authority:
        await with_users(authority)
        ended: list[int] = []
        authority.on_end(ended.append)
        top = await authority.create("ann", ALL)
        child = await authority.derive(authority.verify(top.secret), Scope.READ)
        grandchild = await authority.derive(authority.verify(child.secret), prefix="a")
        sibling = await authority.derive(authority.verify(top.secret))
        other = await authority.create("ann", ALL)
        revoked, count = await authority.revoke(child.token.token_id)
        assert (revoked.state, count) == (TokenState.REVOKED, 2)
        assert is_good(authority, top.secret) and is_good(authority, sibling.secret)
        assert (await authority.revoke(child.token.token_id))[1] == 0, "again is nothing"
        await authority.revoke(top.token.token_id)
        assert is_good(authority, other.secret)
        assert ended == [each.token.token_id for each in (child, grandchild, top, sibling)]
        assert not any(is_good(authority, each.secret) for each in (top, child, grandchild, sibling))


@trio_test
async def test_it_ends_at_once_also_while_no_change_can_join(
    meta: Metadata, autojump_clock: MockClock
) -> None:
    """While a commit hangs in slow drives, say; and nothing is derived from it behind its back."""
    gate = trio.Event()
    authority = Authority(meta.users, meta.tokens, gate.wait, trio.lowlevel.checkpoint)
    gate.set()
    await with_users(authority)
    issued = await authority.create("ann", ALL)
    grant = authority.verify(issued.secret)
    outcome: list[str] = []

    async def derive() -> None:
        with pytest.raises(AccessError):
            await authority.derive(grant)
        outcome.append("refused")

    async def revoke() -> None:
        await authority.revoke(issued.token.token_id)
        outcome.append("revoked")

    authority._enter = (shut := trio.Event()).wait
    async with trio.open_nursery() as nursery:
        nursery.start_soon(derive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(revoke)
        await trio.testing.wait_all_tasks_blocked()
        assert not authority.is_live(issued.token.token_id) and outcome == []
        shut.set()
    assert sorted(outcome) == ["refused", "revoked"]


@trio_test
async def test_a_removed_user_has_no_tokens(
    meta: Metadata, authority_over: Opener, autojump_clock: MockClock
) -> None:
    async with authority_over() as authority:
        await with_users(authority)
        kept = await authority.create("bob", ALL)
        mine = await authority.create("ann", ALL)
        child = await authority.derive(authority.verify(mine.secret))
        user, ended = await authority.remove_user("ann")
        assert (user.folder, ended) == ((b"ann",), 2)
        assert not is_good(authority, mine.secret) and not is_good(authority, child.secret)
        assert is_good(authority, kept.secret) and meta.tokens.count() == 1
        with pytest.raises(UsageError, match="no user 'ann'"):
            await authority.create("ann", ALL)
        await with_users(authority, ["ann"])
        assert not is_good(authority, mine.secret), "another one of that name has other tokens"
        assert (await authority.create("ann", ALL)).token.token_id > child.token.token_id


@trio_test
async def test_an_administrator_stays_within_the_token(
    authority_over: Opener, autojump_clock: MockClock
) -> None:
    async with authority_over() as authority:
        await with_users(authority)
        await authority.add_user("lab", (b"lab",), 1, 1)
        await authority.add_user("lab-ann", (b"lab", b"ann"), 1, 1)
        admin = await grant(authority, "lab", Scope.READ | Scope.ADMIN)
        reader = await grant(authority, "lab", Scope.READ)
        writer = await authority.create("lab-ann", Scope.WRITE)
        strange = await authority.create("ann", Scope.READ)
        # what it reaches
        given = await authority.create("lab-ann", Scope.READ, by=admin)
        deeper = await authority.create("lab", Scope.READ | Scope.ADMIN, "deep", by=admin)
        assert given.token.parent == deeper.token.parent == admin.token_id
        inner = await authority.create("lab", Scope.READ, "deep/er", by=authority.verify(deeper.secret))
        await authority.add_user("lab-cid", (b"lab", b"cid"), 1, 1, by=admin)
        assert [user.name for user in authority.users(0, 9, by=admin)[0]] == ["lab", "lab-ann", "lab-cid"]
        reached = {token.token_id for token in authority.tokens(0, 99, by=admin)[0]}
        assert reached == {
            *(
                admin.token_id,
                reader.token_id,
                given.token.token_id,
                deeper.token.token_id,
                inner.token.token_id,
            )
        }
        # what it does not
        with pytest.raises(AccessError, match="lacks the scope write"):
            await authority.create("lab-ann", Scope.WRITE, by=admin)
        for name in ("ann", "nobody"):
            with pytest.raises(AccessError, match=f"no user '{name}' that this token reaches"):
                await authority.create(name, Scope.READ, by=admin)
            with pytest.raises(AccessError, match="reaches"):
                await authority.remove_user(name, by=admin)
        for number in (writer.token.token_id, strange.token.token_id, 4711):
            with pytest.raises(AccessError, match=f"no token {number} that this token reaches"):
                await authority.revoke(number, by=admin)
            with pytest.raises(AccessError):
                authority.show(number, by=admin)
        with pytest.raises(AccessError, match="good for /lab alone"):
            await authority.add_user("dan", (b"dan",), 1, 1, by=admin)
        with pytest.raises(AccessError, match="a token that yours does not reach"):
            await authority.remove_user("lab-ann", by=admin)
        with pytest.raises(AccessError, match="lacks the scope admin"):
            await authority.create("lab-ann", Scope.READ, by=reader)
        # and with it goes what it made
        await authority.revoke(admin.token_id)
        assert not any(is_good(authority, each.secret) for each in (given, deeper, inner))
        assert is_good(authority, writer.secret)
        with pytest.raises(AccessError, match="not valid"):
            await authority.create("lab-ann", Scope.READ, by=admin)


@trio_test
async def test_a_holder_reaches_its_own_token_and_those_below(
    authority_over: Opener, autojump_clock: MockClock
) -> None:
    async with authority_over() as authority:
        await with_users(authority)
        top = await grant(authority, "ann", Scope.READ)
        child = await authority.derive(top)
        other = await grant(authority, "ann", Scope.READ)
        assert authority.show(top.token_id, by=top).token_id == top.token_id
        assert authority.show(child.token.token_id, by=top) == child.token
        with pytest.raises(AccessError):
            authority.show(other.token_id, by=top)
        with pytest.raises(AccessError):
            await authority.revoke(top.token_id, by=authority.verify(child.secret))
        await authority.revoke(child.token.token_id, by=top)
        await authority.revoke(top.token_id, by=top)
        with pytest.raises(AccessError, match="not valid"):
            await authority.derive(top)


@trio_test
async def test_ended_tokens_are_remembered_for_a_while(
    meta: Metadata, authority_over: Opener, autojump_clock: MockClock
) -> None:
    async with authority_over() as authority:
        await with_users(authority)
        revoked = await authority.create("ann", ALL)
        await authority.derive(authority.verify(revoked.secret))
        await authority.create("ann", ALL, ttl_s=2 * DAY_S)
        ever = await authority.create("ann", ALL)
        await authority.revoke(revoked.token.token_id)
        assert [token.state for token in listed(authority, with_ended=True)] == [
            *(TokenState.REVOKED, TokenState.REVOKED, TokenState.LIVE, TokenState.LIVE)
        ]
        assert len(listed(authority)) == 2
    # Time passes while nobody looks, in one step, and not in half a million looks.
    autojump_clock.jump(limits.TOKENS_ENDED_S + DAY_S)
    async with authority_over() as authority:
        await trio.testing.wait_all_tasks_blocked()
        assert [token.state for token in listed(authority, with_ended=True)] == [
            *(TokenState.EXPIRED, TokenState.LIVE)
        ]
    autojump_clock.jump(2 * DAY_S)
    async with authority_over() as authority:
        await trio.testing.wait_all_tasks_blocked()
        assert [token.token_id for token in listed(authority, with_ended=True)] == [ever.token.token_id]
        assert is_good(authority, ever.secret)


@trio_test
async def test_there_is_a_bound_for_everything(
    meta: Metadata, authority_over: Opener, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, bound in (
        ("USERS_MAX", 2),
        ("TOKENS_MAX", 6),
        ("TOKENS_BELOW_MAX", 2),
        ("TOKENS_ENDED_MAX", 3),
    ):
        monkeypatch.setattr(limits, name, bound)
    async with authority_over() as authority:
        await with_users(authority)
        with pytest.raises(UsageError, match="2 users"):
            await authority.add_user("cid", (b"cid",), 1, 1)
        top = await grant(authority, "ann", ALL)
        below = authority.verify((await authority.derive(top)).secret)
        await authority.derive(below)
        for own in (top, below):
            with pytest.raises(UsageError, match="2 live tokens come from token 1"):
                await authority.derive(own)
        for _ in range(20):
            await authority.revoke((await authority.create("ann", ALL)).token.token_id)
            assert meta.tokens.count() <= 6 + 3
        await grant(authority, "ann", ALL)
        await grant(authority, "bob", ALL)
        await grant(authority, "bob", ALL)
        with pytest.raises(UsageError, match="6 tokens are live"):
            await authority.create("ann", ALL)
        assert authority.is_live(top.token_id)


@trio_test
async def test_another_opening_knows_the_same(
    meta: Metadata, authority_over: Opener, autojump_clock: MockClock
) -> None:
    async with authority_over() as authority:
        await with_users(authority)
        kept = await authority.create("ann", ALL, "a")
        revoked = await authority.create("ann", ALL)
        await authority.revoke(revoked.token.token_id)
    async with authority_over() as authority:
        assert authority.verify(kept.secret).prefix == from_stored(b"/ann/a")
        assert not is_good(authority, revoked.secret)


@trio_test
async def test_lists_come_in_pages(authority_over: Opener, autojump_clock: MockClock) -> None:
    async with authority_over() as authority:
        await with_users(authority, ["ann", "bob", "cid"])
        for name in ("ann", "bob", "ann"):
            await authority.create(name, ALL)
        seen: list[tuple[list[int], int | None]] = []
        after: int | None = 0
        while after is not None:
            page, after = authority.tokens(after, 1, user="ann")
            seen.append(([token.token_id for token in page], after))
        assert seen == [([1], 1), ([], 2), ([3], 3), ([], None)]
        assert authority.users(0, 2)[1] == 2 and authority.users(2, 2)[1] is None


@trio_test
async def test_asking_whether_a_token_is_live_never_touches_the_database(
    meta: Metadata, authority_over: Opener, autojump_clock: MockClock
) -> None:
    async with authority_over() as authority:
        await with_users(authority)
        token_id = (await authority.create("ann", ALL)).token.token_id
        asked: list[str] = []
        meta.database._connection.trace_v2(
            1, lambda event: asked.append(event["sql"])
        )  # 1: SQLITE_TRACE_STMT
        assert authority.is_live(token_id) and not authority.is_live(4711)
        assert asked == []
        authority.show(token_id)
        assert asked != []
        meta.database._connection.trace_v2(0, None)
