"""Users and tokens survive what files survive; what was revoked never comes back; a secret lies nowhere."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.access import secrets
from ciaosfs.access.authority import Authority, open_authority
from ciaosfs.base.errors import AccessError
from ciaosfs.control.scopes import Scope
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta import schema
from tests.support.builders import Store, complaints, put

BOTH = Scope.READ | Scope.WRITE


@asynccontextmanager
async def opened(store: Store) -> AsyncIterator[tuple[FileSystem, Authority]]:
    async with store.open() as filesystem:
        parts = filesystem.parts
        async with open_authority(parts.meta, parts.gate.wait_open, filesystem.sync) as authority:
            yield filesystem, authority


def is_good(authority: Authority, secret: str) -> bool:
    try:
        authority.verify(secret)
    except AccessError:
        return False
    return True


async def with_tokens(authority: Authority) -> dict[str, bool]:
    """Secrets of every kind, and which are good."""
    for name in ("ann", "bob", "cid"):
        await authority.add_user(name, (name.encode(),), 1, 1)
    kept = await authority.create("ann", BOTH, "models", name="kept")
    child = await authority.derive(authority.verify(kept.secret), Scope.READ)
    revoked = await authority.create("ann", BOTH)
    below = await authority.derive(authority.verify(revoked.secret))
    removed = await authority.create("cid", BOTH)
    await authority.revoke(revoked.token.token_id)
    await authority.remove_user("cid")
    made = ((kept, True), (child, True), (revoked, False), (below, False), (removed, False))
    return {issued.secret: good for issued, good in made}


def kill(store: Store) -> None:
    """Nothing else happens."""


def lose_database(store: Store) -> None:
    store.lose_database()


def lose_database_and_drives(store: Store) -> None:
    """... and as many drives as there is parity, in a power cut."""
    store.lose_database()
    store.reboot()
    store.hide(0)
    store.hide(3)


@pytest.mark.parametrize("with_image", [False, True], ids=["log", "image"])
@pytest.mark.parametrize(
    "harm", [kill, lose_database, lose_database_and_drives], ids=lambda harm: harm.__name__
)
@trio_test
async def test_what_was_answered_is_what_is_found(
    tmp_path: Path, harm: Callable[[Store], None], with_image: bool
) -> None:
    """Killed right after the answer, at each kind of change; nothing was synced besides."""
    store = Store.make(tmp_path / "store")
    async with opened(store) as (filesystem, authority):
        expected = await with_tokens(authority)
        if with_image:
            await filesystem.parts.imager.write()
            late = await authority.create("bob", BOTH)
            expected[late.secret] = True
            gone = await authority.create("bob", BOTH)
            await authority.revoke(gone.token.token_id)
            expected[gone.secret] = False
        killed = store.copy(tmp_path / "killed")
        last = max(secrets.claim_of(secret).token_id for secret in expected)
    harm(killed)
    async with opened(killed) as (filesystem, authority):
        assert {secret: is_good(authority, secret) for secret in expected} == expected
        assert [user.name for user in authority.users(0, 9)[0]] == ["ann", "bob"]
        grant = authority.verify(next(iter(expected)))
        assert (grant.user, grant.prefix, grant.scopes) == ("ann", (b"ann", b"models"), BOTH)
        assert (await authority.create("bob", BOTH)).token.token_id == last + 1
    assert complaints(killed.database) == []


@trio_test
async def test_a_token_revoked_after_the_last_answer_is_revoked_with_its_children_or_not_at_all(
    tmp_path: Path,
) -> None:
    """The kill comes before the answer: the step is whole either way."""
    store = Store.make(tmp_path / "store")
    async with opened(store) as (filesystem, authority):
        await authority.add_user("ann", (b"ann",), 1, 1)
        parent = await authority.create("ann", BOTH)
        child = await authority.derive(authority.verify(parent.secret))

        async def killed_before() -> None:
            store.copy(tmp_path / "killed")
            await filesystem.sync()

        authority._sync = killed_before
        await authority.revoke(parent.token.token_id)
    async with opened(Store(tmp_path / "killed")) as (_, authority):
        assert is_good(authority, parent.secret) is is_good(authority, child.secret) is True
    async with opened(store) as (_, authority):
        assert is_good(authority, parent.secret) is is_good(authority, child.secret) is False


@trio_test
async def test_no_file_of_the_store_holds_a_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither as text nor as bytes: database, volumes, images, what is rebuilt from them, the log."""
    caplog.set_level(logging.DEBUG)
    store = Store.make(tmp_path / "store")
    async with opened(store) as (filesystem, authority):
        await put(filesystem, b"canary", b"a file that is found")
        made = await with_tokens(authority)
        await filesystem.parts.imager.write()
        for secret in made:
            is_good(authority, secret)
    store.lose_database()
    rows: list[object] = []
    async with opened(store) as (filesystem, authority):
        assert all(is_good(authority, secret) is good for secret, good in made.items())
        with filesystem.parts.meta.reader() as reader:
            for table in schema.TABLES:
                rows += reader.rows(f"SELECT * FROM {table}")
    files = {str(path): path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    said = capfd.readouterr()
    everything = {
        **files,
        "log": caplog.text.encode(),
        "said": (said.out + said.err).encode(),
        "rows": repr(rows).encode(),
    }
    assert any(b"a file that is found" in content for content in files.values()), "it looks where bytes are"
    hashes = 0
    for secret in made:
        text = secret.split("_", 2)[2]
        content = base64.urlsafe_b64decode(text + "=")
        hashes += any(secrets.hash_of(content) in file for file in files.values())
        for form in (text.encode(), content, content.hex().encode(), repr(content)[2:-1].encode()):
            assert [place for place, there in everything.items() if form in there] == []
    assert hashes >= 4, "the hash is stored, as it is"
