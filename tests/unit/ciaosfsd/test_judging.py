"""Who a control client is, and what it may call: credentials of the peer, tokens given or of its session, needs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from ciaosfsd.control.call import Connection, Tally
from ciaosfsd.control.handlers_hello import HelloHandlers
from ciaosfsd.control.needs import ADMIN, ANYBODY, OWNER, TOKEN, Need, holder
from ciaosfsd.control.peer import TokenChecks, peer_of
from trio.testing import MockClock, trio_test

from ciaosfs.access.grants import Grant
from ciaosfs.base.config import load_config
from ciaosfs.base.errors import AccessError, UsageError
from ciaosfs.control.messages import Request, encode_request
from ciaosfs.control.scopes import Scope
from ciaosfs.offline.mkfs import make_store, plan_store
from tests.support.conversing import OPERATIONS, SECRET, USER, Desk


def grant_with(scopes: Scope, token_id: int = 7) -> Grant:
    return Grant(token_id, "alice", (b"alice",), (b"alice", b"\xff"), scopes, 0)


@dataclass
class Tokens:
    """Tokens by secret, those of sessions by uid, and which of them live."""

    by_secret: dict[str, Grant] = field(default_factory=dict)
    by_uid: dict[int, Grant] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)

    def verify(self, secret: str) -> Grant:
        if secret not in self.by_secret:
            raise AccessError("The token is not valid.")
        return self.by_secret[secret]

    def checks(self) -> TokenChecks:
        return TokenChecks(
            self.verify, lambda pid, uid: self.by_uid.get(uid), lambda token_id: token_id not in self.ended
        )


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("hello") / "store"
    make_store(plan_store(store, [], 1, 0))
    return store


def desk_with(tokens: Tokens, store: Path) -> Desk:
    checks = tokens.checks()
    hello = HelloHandlers(load_config(store), Path("/mnt/ciaos"), OPERATIONS, checks.verify, "tokens")
    return Desk((*OPERATIONS, *hello.operations()), checks)


READ_WRITE = Scope.READ | Scope.WRITE
NEEDS: list[tuple[Need, str, Scope | None, bool, str]] = [
    # need, as it is written, scopes of the token (None: no token), whether owner, what the refusal says
    (ANYBODY, "anybody", None, False, ""),
    (ANYBODY, "anybody", Scope.READ, False, ""),
    (OWNER, "owner", None, True, ""),
    (OWNER, "owner", None, False, "Only root and the user who mounted"),
    (OWNER, "owner", Scope.ADMIN | READ_WRITE | Scope.DELETE, False, "Only root and the user who mounted"),
    (ADMIN, "admin", None, True, ""),
    (ADMIN, "admin", None, False, "needs a token with the scope admin"),
    (ADMIN, "admin", READ_WRITE, False, "lacks the scope admin"),
    (ADMIN, "admin", Scope.ADMIN, False, ""),
    (TOKEN, "token", None, True, ""),
    (TOKEN, "token", None, False, "needs a token: "),
    (TOKEN, "token", Scope.DELETE, False, ""),
    (holder(Scope.READ), "read", Scope.READ, False, ""),
    (holder(Scope.READ), "read", Scope.WRITE | Scope.ADMIN, False, "lacks the scope read"),
    (holder(READ_WRITE), "read write", Scope.READ, False, "lacks the scope write"),
    (holder(READ_WRITE), "read write", None, False, "scope read and write"),
    (holder(READ_WRITE), "read write", READ_WRITE, False, ""),
]


@pytest.mark.parametrize(("need", "written", "scopes", "is_owner", "complaint"), NEEDS)
def test_a_need_is_met_or_names_what_is_missing(
    need: Need, written: str, scopes: Scope | None, is_owner: bool, complaint: str
) -> None:
    assert str(need) == written
    grant = None if scopes is None else grant_with(scopes)
    if not complaint:
        need.check("dance", grant, is_owner=is_owner)
        return
    with pytest.raises(AccessError, match=complaint) as caught:
        need.check("dance", grant, is_owner=is_owner)
    assert "dance" in caught.value.message
    assert caught.value.exit_code == 8


@trio_test
async def test_a_token_given_is_what_counts_until_it_ends(autojump_clock: MockClock, hello: Path) -> None:
    tokens = Tokens({SECRET: grant_with(Scope.ADMIN)}, {USER: grant_with(Scope.READ, 3)})
    async with desk_with(tokens, hello).client() as client:
        assert await client.ask("whoami") == {"owner": False, "token": 3}
        with pytest.raises(AccessError, match="lacks the scope admin"):
            await client.ask("administer")
        assert await client.ask("auth", token=SECRET) == {
            "user": "alice",
            "scopes": ["admin"],
            "folder": "/alice",
            "prefix": "/alice/\udcff",
            "expires_ns": 0,
        }
        await client.ask("administer")
        tokens.ended.add(7)
        assert await client.ask("whoami") == {"owner": False, "token": None}
        with pytest.raises(AccessError, match="needs a token with the scope admin"):
            await client.ask("administer")
        assert await client.ask("auth") == {}
        assert await client.ask("whoami") == {"owner": False, "token": 3}


@trio_test
async def test_an_owner_with_a_token_is_judged_by_it_even_when_it_has_ended(
    autojump_clock: MockClock, hello: Path
) -> None:
    tokens = Tokens({SECRET: grant_with(Scope.READ)})
    async with desk_with(tokens, hello).client(uid=0) as client:
        await client.ask("own")
        await client.ask("auth", token=SECRET)
        for _ in range(2):
            assert (await client.ask("whoami"))["owner"] is False
            with pytest.raises(AccessError, match="Only root and the user"):
                await client.ask("own")
            tokens.ended.add(7)
        await client.ask("auth", token=None)
        await client.ask("own")
        tokens.by_uid[0] = grant_with(Scope.READ, 5)
        with pytest.raises(AccessError):
            await client.ask("own")


@trio_test
async def test_a_token_that_ends_while_the_body_comes_does_not_count(
    autojump_clock: MockClock, hello: Path
) -> None:
    tokens = Tokens({SECRET: grant_with(Scope.ADMIN)})
    async with desk_with(tokens, hello).client() as client:
        await client.ask("auth", token=SECRET)
        await client.stream.send_all(encode_request(Request("administer", {}, 3)) + b"ab")
        await trio.sleep(1)
        tokens.ended.add(7)
        await client.stream.send_all(b"c")
        with pytest.raises(AccessError, match="needs a token"):
            await client.reply()
        await client.ask("whoami")


@pytest.mark.parametrize("token", ["", "x", SECRET[:-1], SECRET + "0", 7, [SECRET], {"token": SECRET}])
@trio_test
async def test_a_token_that_is_none_changes_nothing_and_is_not_shown(
    autojump_clock: MockClock, hello: Path, caplog: pytest.LogCaptureFixture, token: object
) -> None:
    caplog.set_level("DEBUG")
    tokens = Tokens({SECRET: grant_with(Scope.READ)})
    async with desk_with(tokens, hello).client() as client:
        await client.ask("auth", token=SECRET)
        handle = (await client.ask("keep"))["handle"]
        with pytest.raises((AccessError, UsageError), match="token") as caught:
            await client.ask("auth", token=token)
        assert await client.ask("whoami") == {"owner": False, "token": 7}
        await client.ask("use", handle=handle)
    assert SECRET[:-1] not in str(caught.value) + caplog.text


@trio_test
async def test_what_one_token_opened_is_not_there_for_another(autojump_clock: MockClock, hello: Path) -> None:
    tokens = Tokens({}, {USER: grant_with(Scope.READ, 3)})
    async with desk_with(tokens, hello).client() as client:
        handle = (await client.ask("keep"))["handle"]
        tokens.by_uid[USER] = grant_with(Scope.READ, 4)  # the session logged in anew
        with pytest.raises(AccessError, match="another token"):
            await client.ask("use", handle=handle)
        del tokens.by_uid[USER]
        with pytest.raises(AccessError, match="another token"):
            await client.ask("close", handle=handle)


@trio_test
async def test_hello_tells_what_there_is(autojump_clock: MockClock, hello: Path) -> None:
    async with desk_with(Tokens(), hello).client() as client:
        told = await client.ask("hello")
    assert told["protocol"] == 1
    assert told["access"] == "tokens"
    assert told["operations"]["administer"] == "admin"
    assert told["operations"]["auth"] == "anybody"
    assert told["limits"]["body"] == 1 << 20


def test_the_kernel_says_who_connects(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        client.connect(str(tmp_path / "s"))
        accepted, _ = listener.accept()
        with accepted, peer_of(accepted) as peer:
            caller = peer.caller(Connection(Tally(), 0), TokenChecks())
    assert (caller.pid, caller.uid, caller.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert sorted(caller.groups) == sorted(os.getgroups())
    assert caller.is_owner and caller.grant is None


HAND_ON = """
import os, socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
if os.fork() == 0:
    sys.stdin.read()
"""


def test_a_connection_that_was_handed_on_has_no_session(tmp_path: Path) -> None:
    asked: list[int] = []

    def grant_of(pid: int, uid: int) -> Grant | None:
        asked.append(pid)
        return grant_with(Scope.READ)

    checks = TokenChecks(grant_of=grant_of, is_live=lambda token_id: True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        command = [sys.executable, "-c", HAND_ON, str(tmp_path / "s")]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            accepted, _ = listener.accept()
            with accepted, peer_of(accepted) as peer:
                connection = Connection(Tally(), 0)
                process.wait()  # its child has the connection now, and it may be reaped
                caller = peer.caller(connection, checks)
                assert (caller.pid, caller.uid, caller.grant) == (0, os.geteuid(), None)
                assert not caller.is_owner
                connection.given = grant_with(Scope.WRITE)
                assert peer.caller(connection, checks).grant == grant_with(Scope.WRITE)
            assert process.stdin is not None
            process.stdin.close()
    assert process.pid not in asked
