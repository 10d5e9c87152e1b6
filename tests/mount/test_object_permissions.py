"""Who may do what with objects: on a mount, the kernel says to a key what it says to a process of the same user."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from ciaosfs.fs import acl
from ciaosfs.objects.credentials import Actor
from ciaosfs.objects.store import Place
from ciaosfs.objects.visits import Wish
from tests.support.object_mount import ObjectMount, as_user, parse, refusal_of

ALICE: Final = Actor(1001, 1001, (2000,))
BOB: Final = Actor(1002, 1002, (2000,))


def set_acl(path: Path, name: bytes, *entries: tuple[int, int, int]) -> None:
    os.setxattr(path, name, acl.encode([acl.Entry(*entry) for entry in entries]))


NO_ID = 0xFFFFFFFF


@dataclass(frozen=True)
class Scene:
    """A directory with a file in it: whose, with which modes, and ACLs for Alice on both or as default."""

    name: str
    owner: int = 0
    group: int = 0
    mode: int = 0o755
    file_owner: int = 0
    file_mode: int = 0o644
    folder_acl: int | None = None
    file_acl: int | None = None
    is_default: bool = False


SCENES: Final = [
    Scene("hers", 1001, 1001, 0o700, 1001, 0o600),
    Scene("roots"),
    Scene("searchable", mode=0o711),
    Scene("not searchable", mode=0o744),
    Scene("closed", mode=0o700),
    Scene("open to all", mode=0o777, file_mode=0o600),
    Scene("sticky", mode=0o1777, file_mode=0o666),
    Scene("sticky, file hers", mode=0o1777, file_owner=1001),
    Scene("sticky, folder hers", 1001, 1001, 0o1755),
    Scene("by a supplementary group", group=2000, mode=0o770, file_mode=0o640),
    Scene("set-group-id", group=2000, mode=0o2775),
    Scene("by an ACL", mode=0o700, folder_acl=7, file_acl=6, file_mode=0o600),
    Scene("an ACL that only reads", mode=0o700, folder_acl=5, file_acl=4, file_mode=0o600),
    Scene("a default ACL", mode=0o777, is_default=True),
]


def build(scene: Scene, folder: Path) -> None:
    folder.mkdir()
    file = folder / "file"
    file.write_bytes(b"content")
    for path, owner, bits in (
        (file, scene.file_owner, scene.file_acl),
        (folder, scene.owner, scene.folder_acl),
    ):
        os.chown(path, owner, scene.group if path is folder else 0)
        path.chmod(scene.mode if path is folder else scene.file_mode)
        if bits is not None:
            set_acl(path, acl.ACCESS, (1, 6 if path is file else 7, NO_ID), (2, bits, 1001), (4, 0, NO_ID),
                    (16, bits, NO_ID), (32, 0, NO_ID))  # fmt: skip
    if scene.is_default:
        set_acl(
            folder, acl.DEFAULT, (1, 7, NO_ID), (2, 6, 1002), (4, 5, NO_ID), (16, 7, NO_ID), (32, 0, NO_ID)
        )


def plain_replace() -> None:
    Path("folder/.new").touch(exist_ok=False)
    try:
        os.rename("folder/.new", "folder/file")
    except OSError:
        os.unlink("folder/.new")
        raise


PLAIN: Final[dict[str, Callable[[], object]]] = {
    "read": lambda: Path("folder/file").read_bytes(),
    "append": lambda: os.close(os.open("folder/file", os.O_WRONLY | os.O_APPEND)),
    "create": lambda: os.close(os.open("folder/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)),
    "create below": lambda: os.mkdir("folder/sub"),
    "replace": plain_replace,
    "list": lambda: os.listdir("folder"),
    "rename": lambda: os.rename("folder/file", "folder/renamed"),
    "delete": lambda: os.unlink("folder/file"),
}


def by_key(mount: ObjectMount, place: Place) -> dict[str, Callable[[], object]]:
    async def delete() -> None:
        await mount.objects.delete(place, parse("folder/file"))

    async def rename() -> None:
        await mount.objects.rename(place, parse("folder/file"), parse("folder/renamed"))

    return {
        "read": lambda: mount.get(place, "folder/file"),
        "append": lambda: mount.append(place, "folder/file", b""),
        "create": lambda: mount.put(place, "folder/new", b"", Wish.CREATE, 0o644),
        "create below": lambda: mount.put(place, "folder/sub/key", b"", Wish.CREATE, 0o644),
        "replace": lambda: mount.put(place, "folder/file", b"", Wish.REPLACE),
        "list": lambda: mount.keys(place, "folder/", flat=True),
        "rename": lambda: mount.ask(rename),
        "delete": lambda: mount.ask(delete),
    }


@pytest.mark.root
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_permissions_are_those_of_plain_files(mount: ObjectMount, place: Place, scene: Scene) -> None:
    """Each operation as Alice, by its key and by a process of hers, in two folders that are alike."""
    for operation in PLAIN:
        base = mount.path_of(place)
        mine, theirs = base / f"{operation} by key", base / f"{operation} plain"
        for path in (mine, theirs):
            path.mkdir()
            build(scene, path / "folder")
        own = (*place.folder, os.fsencode(mine.name))
        expected = as_user(ALICE, theirs, PLAIN[operation])
        found = refusal_of(by_key(mount, Place(ALICE, own, own))[operation])
        assert found == expected, operation
        if not found and operation in ("create", "create below"):
            name = "new" if operation == "create" else "sub"
            assert looks(mine / "folder" / name) == looks(theirs / "folder" / name)


def looks(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    acls = {name: os.getxattr(path, name) for name in os.listxattr(path) if "acl" in name}
    return oct(found.st_mode), found.st_uid, found.st_gid, acls


@pytest.mark.root
def test_an_updated_file_keeps_its_permissions_and_gets_its_writer(mount: ObjectMount, place: Place) -> None:
    folder = mount.path_of(place)
    folder.chmod(0o777)
    mount.put(place, "key", b"old", permissions=0o604)
    mount.put(Place(BOB, place.folder, place.reach), "key", b"new", Wish.REPLACE)
    found = (folder / "key").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o604, BOB.uid, BOB.gid)
