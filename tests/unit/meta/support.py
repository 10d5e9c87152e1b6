"""What the tests of the metadata are built from."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from ciaosfs.base.types import Codec, Extent, ShardPlace, StripeKind, StripeRecord
from ciaosfs.meta import integrity, schema
from ciaosfs.meta.commitlog import CommitRecord
from ciaosfs.meta.inodes import ROOT_INO, Inode
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.tokens import TokenRow
from ciaosfs.meta.users import UserRow

STORE_ID = bytes(range(16))
VOLUME_ID = 4000


def make_inode(ino: int, mode: int = stat.S_IFREG | 0o644, nlink: int = 1, **fields: Any) -> Inode:
    values = dict.fromkeys(Inode._fields[3:14], 0) | {"parent": ROOT_INO, "target": None}
    return Inode(ino=ino, mode=mode, nlink=nlink, **{**values, **fields})


def set_size(meta: Metadata, ino: int, size: int) -> None:
    """Give the inode another size and leave its extents as they are, which no request does."""
    inode = meta.inodes.load(ino)
    assert inode is not None
    meta.inodes.update(inode._replace(size=size))


def make_stripe(stripe_id: int, payload_bytes: int = 4096, data: int = 4, parity: int = 2) -> StripeRecord:
    shard_bytes = -(-payload_bytes // data)
    places = tuple(ShardPlace(index, VOLUME_ID + index, stripe_id * 4096) for index in range(data + parity))
    return StripeRecord(stripe_id, StripeKind.FILE, data, parity, payload_bytes, shard_bytes, places)


def raw(offset: int, length: int, stripe_id: int, stripe_offset: int = 0) -> Extent:
    return Extent(offset, length, stripe_id, stripe_offset, length, Codec.RAW, 0)


def zstd(
    offset: int, length: int, stripe_id: int, stripe_offset: int = 0, stored: int = 7, skip: int = 0
) -> Extent:
    return Extent(offset, length, stripe_id, stripe_offset, stored, Codec.ZSTD, skip)


def fresh(path: Path) -> Metadata:
    """A database with a root directory and the volumes that `make_stripe` names, not committed yet."""
    meta = Metadata.create_fresh(path, STORE_ID)
    meta.inodes.insert(make_inode(ROOT_INO, stat.S_IFDIR | 0o755, 2))
    for index in range(6):
        meta.volumes.note(VOLUME_ID + index, index, 1, "open")
    return meta


def add_file(meta: Metadata, name: bytes, size: int = 0, parent: int = ROOT_INO) -> int:
    """A file with a name; returns its number."""
    ino = meta.inodes.take_ino()
    meta.inodes.insert(make_inode(ino, size=size, parent=parent))
    meta.dentries.insert(parent, name, ino)
    return ino


def add_directory(meta: Metadata, name: bytes, parent: int = ROOT_INO) -> int:
    ino = meta.inodes.take_ino()
    meta.inodes.insert(make_inode(ino, stat.S_IFDIR | 0o755, 2, parent=parent))
    meta.dentries.insert(parent, name, ino)
    meta.inodes.touch(parent, 0, 0, 1)
    return ino


def give_user(meta: Metadata, name: str = "ann", folder: bytes = b"/ann") -> int:
    """A user; returns its number."""
    user_id = meta.users.next_id()
    meta.users.insert(UserRow(user_id, name, folder, 0, 0, 0))
    return user_id


def give_token(
    meta: Metadata, user_id: int, parent: int = 0, prefix: bytes = b"/ann", scopes: int = 7, **fields: int
) -> int:
    """A token that never expires unless `fields` say so; returns its number."""
    row = TokenRow(meta.tokens.take_id(), user_id, parent, bytes(32), "", scopes, prefix, 0, 0, 0)
    meta.tokens.insert(row._replace(**fields))  # type: ignore[arg-type]
    return row.token_id


def commit(meta: Metadata) -> CommitRecord:
    """One commit as the file system makes it, without the drives."""
    state = meta.state.successor(epoch=1, time_ns=0, log_volume_min=0)
    meta.state.save(state)
    record = CommitRecord.make(state, meta.take_changeset())
    meta.commit()
    return record


def dump(meta: Metadata) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table as of the last commit."""
    with meta.reader() as reader:
        return {table: sorted(reader.rows(f"SELECT * FROM {table}")) for table in schema.TABLES}


def complaints(meta: Metadata) -> list[str]:
    """What `integrity` finds after a commit of whatever is pending."""
    commit(meta)
    with meta.reader() as reader:
        return list(integrity.check(reader))
