"""A store that tokens guard, mounted for other users to reach, with users, folders and tokens made before."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from ciaosfs.access.authority import Authority, open_authority
from ciaosfs.access.paths import parse_folder
from ciaosfs.client.locate import socket_of
from ciaosfs.control.scopes import Scope
from ciaosfs.fs.requester import Requester
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.actors import Actor
from tests.support.builders import Store
from tests.support.mount import MountedStore

ALICE, BOB = 4001, 4002
USERS = {"alice": ALICE, "bob": BOB}
SCOPES = {
    "r": Scope.READ,
    "w": Scope.WRITE,
    "d": Scope.DELETE,
    "rw": Scope.READ | Scope.WRITE,
    "rd": Scope.READ | Scope.DELETE,
    "wd": Scope.WRITE | Scope.DELETE,
    "rwd": Scope.READ | Scope.WRITE | Scope.DELETE,
}


@dataclass(frozen=True)
class GuardedMount:
    """`secrets` are of tokens by "user scopes" ("alice rwd"), and those a test module asked for by their names."""

    store: MountedStore
    secrets: dict[str, str]

    @property
    def path(self) -> Path:
        return self.store.path

    @property
    def control(self) -> Path:
        return socket_of(self.store.store)

    @contextmanager
    def actor(self, uid: int = ALICE, token: str | None = None) -> Iterator[Actor]:
        """A process in a session of its own, logged in with the token of this name."""
        with Actor(uid) as actor:
            if token is not None:
                actor.login(self.control, self.secrets[token])
            yield actor

    def set_access(self, mode: str) -> None:
        """From the next mount on."""
        config = self.store.store / "ciaosfs.toml"
        lines = [line for line in config.read_text().splitlines() if not line.startswith("access =")]
        config.write_text("\n".join([f'access = "{mode}"', *lines]) + "\n")


@contextmanager
def guarded_mount(more: Iterable[tuple[str, str, str]] = ()) -> Iterator[GuardedMount]:
    """Users alice and bob with folders of their own and tokens of all scopes; `more` are (name, user, prefix) of others."""
    base = Path(tempfile.mkdtemp(prefix="ciaosfs-guarded-"))
    base.chmod(0o755)
    store = MountedStore(base / "ciaosfs")
    store.base.mkdir()
    store.mkfs()
    guarded = GuardedMount(store, trio.run(_populate, store.store, tuple(more)))
    guarded.set_access("tokens")
    try:
        with store.already_made():
            yield guarded
    finally:
        shutil.rmtree(base, ignore_errors=True)


async def _populate(path: Path, more: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    async with Store(path).open() as filesystem:
        parts = filesystem.parts
        async with open_authority(parts.meta, parts.gate.wait_open, filesystem.sync) as authority:
            for name, uid in USERS.items():
                who = Requester(uid, uid, os.getpid(), 0o022)
                await filesystem.mkdir(ROOT_INO, name.encode(), 0o777, who)
                await authority.add_user(name, parse_folder(f"/{name}"), uid, uid)
            return await _issue(authority, more)


async def _issue(authority: Authority, more: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    secrets = {}
    for user in USERS:
        for name, scopes in SCOPES.items():
            secrets[f"{user} {name}"] = (await authority.create(user, scopes)).secret
    for name, user, prefix in more:
        secrets[name] = (await authority.create(user, SCOPES["rwd"], prefix)).secret
    return secrets
