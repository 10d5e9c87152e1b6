"""A small sound tree to break one invariant of."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ciaosfs.meta.inodes import FLAG_XATTRS, ROOT_INO, Inode
from ciaosfs.meta.metadata import Metadata
from tests.unit.meta.support import (
    add_directory,
    add_file,
    complaints,
    fresh,
    give_token,
    give_user,
    make_inode,
    make_stripe,
    raw,
    zstd,
)


@dataclass
class Sound:
    """A small tree with one of everything."""

    meta: Metadata
    file: int
    linked: int
    directory: int
    inner: int
    symlink: int
    user: int
    token: int
    child: int

    def sql(self, statement: str, *bindings: object) -> None:
        """A change that no method would make."""
        self.meta.database.executor()(statement, bindings)


@contextmanager
def sound_tree(path: Path) -> Iterator[Sound]:
    """One with files, links, directories, extents, attributes, a user and tokens, committed."""
    meta = fresh(path)
    file = add_file(meta, b"file", size=100)
    linked = add_file(meta, b"linked", size=100)
    directory = add_directory(meta, b"directory")
    inner = add_directory(meta, b"inner", directory)
    meta.dentries.insert(inner, b"second name", linked)
    meta.inodes.touch(linked, 0, 0, 1)
    symlink = meta.inodes.take_ino()
    meta.inodes.insert(make_inode(symlink, stat.S_IFLNK | 0o777, size=4, target=b"file"))
    meta.dentries.insert(ROOT_INO, b"symlink", symlink)
    meta.stripes.insert(make_stripe(1))
    meta.stripes.insert(make_stripe(2))
    meta.extents.replace(file, 0, 100, [raw(0, 40, 1), zstd(50, 50, 1, 100)])
    meta.extents.replace(linked, 0, 100, [raw(0, 10, 2)])
    meta.xattrs.set(file, b"user.a", b"1")
    set_flags(meta, file, FLAG_XATTRS)
    user = give_user(meta)
    token = give_token(meta, user, expires_ns=100)
    child = give_token(meta, user, token, b"/ann/below", 1, expires_ns=99)
    assert complaints(meta) == []
    yield Sound(meta, file, linked, directory, inner, symlink, user, token, child)
    meta.close()


def set_flags(meta: Metadata, ino: int, flags: int) -> None:
    meta.inodes.update(loaded(meta, ino)._replace(flags=flags))


def loaded(meta: Metadata, ino: int) -> Inode:
    inode = meta.inodes.load(ino)
    assert inode is not None
    return inode
