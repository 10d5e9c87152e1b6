"""Users and tokens over the control socket: who may ask what, what is told, and that folders are made."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from ciaosfsd.control.call import Answer, Call, Caller, Connection, Tally
from ciaosfsd.control.handlers_access import AccessHandlers
from ciaosfsd.folders import Folders
from trio.testing import trio_test

from ciaosfs.access.authority import Authority, open_authority
from ciaosfs.access.grants import Grant
from ciaosfs.base.errors import AccessError, UsageError
from ciaosfs.control.scopes import Scope
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.fs.requester import ROOT
from ciaosfs.meta.metadata import Metadata
from tests.support.memory_fs import MemoryFileSystem

UID, GID = 54321, 54322
"""Of nobody on this machine."""


class Socket:
    """The operations of an authority over a tree in memory, each called as the dispatcher calls it."""

    def __init__(self, authority: Authority, workers: Workers) -> None:
        self.authority = authority
        self.tree = MemoryFileSystem()
        self.forgotten: list[tuple[int, bytes]] = []
        folders = Folders(cast(FileSystem, self.tree), workers, self._forget)
        handlers = AccessHandlers(authority, folders.make, workers)
        self._rows = {row.name: row for row in handlers.operations()}

    def _forget(self, directory: int, name: bytes, inodes: Sequence[int]) -> None:
        self.forgotten.append((directory, name))

    async def ask(self, operation: str, grant: Grant | None = None, **arguments: Any) -> Mapping[str, Any]:
        """As the owner, or by a grant."""
        row = self._rows[operation]
        caller = Caller(1, UID, GID, (), grant is None, grant)
        row.need.check(operation, grant, is_owner=caller.is_owner)
        result = await row.handler(Call(operation, caller, Connection(Tally(), UID), arguments))
        assert not isinstance(result, Answer)
        return result


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Socket]:
    meta = Metadata.create_fresh(path / "meta.sqlite", bytes(16))
    try:
        async with (
            Workers() as workers,
            open_authority(meta, trio.lowlevel.checkpoint, trio.lowlevel.checkpoint) as authority,
        ):
            yield Socket(authority, workers)
    finally:
        meta.close()


@trio_test
async def test_a_user_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    async with opened(tmp_path) as socket:
        added = await socket.ask("user-add", name="nobody-here")
        assert added["made"] and added["user"]["folder"] == "/nobody-here"
        folder = socket.tree.lookup(1, b"nobody-here")
        assert folder is not None and (folder.uid, folder.gid) == (UID, GID), "who asks"
        assert stat.S_IMODE(folder.mode) == 0o700 and stat.S_ISDIR(folder.mode)
        assert socket.forgotten == [(1, b"nobody-here")], "the kernel may know that there was none"
        system = await socket.ask("user-add", name="root")
        assert (system["user"]["uid"], system["user"]["gid"]) == (0, 0), "the system's user of that name"
        other = await socket.ask("user-add", name="other", uid=7, gid=8)
        assert (other["user"]["uid"], other["user"]["gid"]) == (7, 8)
        group = await socket.ask("user-add", name="group", gid=8)
        assert (group["user"]["uid"], group["user"]["gid"]) == (UID, 8)
        assert not (await socket.ask("user-add", name="all", folder="/"))["made"]


@trio_test
async def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as socket:
        lab = await socket.tree.mkdir(1, b"lab", 0o755, ROOT)
        await socket.tree.mknod(1, b"file", stat.S_IFREG, 0, ROOT)
        assert not (await socket.ask("user-add", name="lab"))["made"]
        assert socket.tree.getattr(lab.ino).uid == 0
        assert (await socket.ask("user-add", name="ann", folder="/lab/ann"))["made"]
        for folder in ("/file", "/file/ann", "/missing/ann", "relative", "/../x"):
            with pytest.raises(UsageError):
                await socket.ask("user-add", name="bob", folder=folder)
        with pytest.raises(UsageError, match="already"):
            await socket.ask("user-add", name="ann", folder="/lab/other")
        assert socket.tree.lookup(lab.ino, b"other") is None, "nothing is made for who cannot be added"
        assert [user["name"] for user in (await socket.ask("user-list"))["users"]] == ["lab", "ann"]
        removed = await socket.ask("user-remove", name="ann")
        assert removed["user"]["folder"] == "/lab/ann" and socket.tree.lookup(lab.ino, b"ann") is not None


@trio_test
async def test_the_secret_is_told_once_and_nowhere_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as socket:
        await socket.ask("user-add", name="ann")
        made = await socket.ask(
            "token-create", user="ann", scopes=["read", "write"], prefix="a/\udcff", ttl_s=60
        )
        secret = made["secret"]
        grant = socket.authority.verify(secret)
        assert grant.prefix == (b"ann", b"a", b"\xff") and grant.scopes == Scope.READ | Scope.WRITE
        derived = await socket.ask("token-derive", grant, scopes=["read"], name="below")
        told = [
            made["token"],
            derived["token"],
            await socket.ask("token-list", all=True),
            await socket.ask("token-show", id=1),
            await socket.ask("token-show", grant),
            await socket.ask("token-revoke", id=1),
        ]
        text = json.dumps(told)
        for issued in (secret, derived["secret"]):
            assert issued.split("_", 2)[2] not in text
        assert told[3]["token"] == told[4]["token"] == made["token"]
        assert told[5]["ended"] == 2 and told[5]["token"]["state"] == "revoked"


@trio_test
async def test_every_operation_asks_for_its_scope(tmp_path: Path) -> None:
    """Operation x scope: with each scope alone, in the own prefix."""
    calls: dict[str, dict[str, Any]] = {
        "user-add": {"name": "cid", "folder": "/ann/cid"},
        "user-list": {},
        "user-remove": {"name": "dan"},
        "token-create": {"user": "ann"},
        "token-list": {},
        "token-show": {},
        "token-revoke": {"id": None},
        "token-derive": {},
    }
    holders = {"token-show", "token-revoke", "token-derive"}
    for scope in Scope:
        with_name = scope.names
        async with opened(tmp_path) as socket:
            assert {row for row in socket._rows} == set(calls)
            await socket.ask("user-add", name="ann")
            await socket.ask("user-add", name="dan", folder="/ann/dan")
            for operation, arguments in calls.items():
                made = await socket.ask("token-create", user="ann", scopes=with_name)
                grant = socket.authority.verify(made["secret"])
                asked = dict(arguments)
                if operation == "token-create":
                    asked["scopes"] = with_name
                if operation == "token-revoke":
                    asked["id"] = grant.token_id
                if operation in holders or scope is Scope.ADMIN:
                    await socket.ask(operation, grant, **asked)
                else:
                    with pytest.raises(AccessError, match="lacks the scope admin"):
                        await socket.ask(operation, grant, **asked)


@trio_test
async def test_an_administrator_makes_folders_for_himself_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as socket:
        await socket.ask("user-add", name="lab")
        admin = socket.authority.verify(
            (await socket.ask("token-create", user="lab", scopes=["admin"]))["secret"]
        )
        with pytest.raises(AccessError, match="leave --uid"):
            await socket.ask("user-add", admin, name="root", folder="/lab/root", uid=0)
        with pytest.raises(AccessError, match="good for /lab alone"):
            await socket.ask("user-add", admin, name="ann", folder="/ann")
        assert socket.tree.lookup(1, b"ann") is None
        added = await socket.ask("user-add", admin, name="root", folder="/lab/root")
        assert (added["user"]["uid"], added["user"]["gid"]) == (UID, GID), "not the system's user"


@trio_test
async def test_rubbish_is_a_sentence(tmp_path: Path) -> None:
    async with opened(tmp_path) as socket:
        await socket.ask("user-add", name="ann")
        good = {"user": "ann", "scopes": ["read"]}
        rubbish: list[tuple[str, dict[str, Any]]] = [
            ("user-add", {}),
            ("user-add", {"name": 7}),
            ("user-add", {"name": "a/b"}),
            *(("user-add", {"name": "bob", "uid": uid}) for uid in (-1, 1 << 32, "0", True)),
            ("token-create", {"user": "ann"}),
            ("token-create", {"user": "nobody", "scopes": ["read"]}),
            *(("token-create", {**good, "scopes": scopes}) for scopes in ([], ["all"], "read", [1])),
            *(("token-create", {**good, "prefix": prefix}) for prefix in ("/", "..", 7, "x\0", "\ud800")),
            *(("token-create", {**good, "ttl_s": ttl}) for ttl in (0, -1, "1d", float("nan"), 10**400, True)),
            *(("token-create", {**good, "name": name}) for name in (7, "x" * 99, "a\nb")),
            *(("token-show", {"id": number}) for number in (None, 0, 1 << 63, "1", True, 4711)),
            ("token-revoke", {}),
            ("token-revoke", {"id": 4711}),
            ("token-derive", {}),
            ("token-list", {"after": -1}),
            ("user-remove", {"name": "nobody"}),
        ]
        for operation, arguments in rubbish:
            with pytest.raises(UsageError):
                await socket.ask(operation, **arguments)
        assert (await socket.ask("token-list", all=True))["tokens"] == []


@trio_test
async def test_a_page_fits_into_one_answer(tmp_path: Path) -> None:
    async with opened(tmp_path) as socket:
        await socket.ask("user-add", name="all", folder="/")
        prefix = "/".join(["\udcff" * 250] * 4)
        for _ in range(101):
            await socket.ask("token-create", user="all", scopes=["read"], prefix=prefix, name="x" * 64)
        page = await socket.ask("token-list")
        assert len(page["tokens"]) == 100 and len(json.dumps(page)) < 1 << 20
        assert len((await socket.ask("token-list", after=page["after"]))["tokens"]) == 1
        assert os.fsencode(page["tokens"][0]["prefix"]) == os.fsencode("/" + prefix)
