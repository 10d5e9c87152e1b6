"""Extended attributes as rows."""

from __future__ import annotations

from ciaosfs.base import limits
from ciaosfs.meta.inodes import ROOT_INO
from ciaosfs.meta.metadata import Metadata


def test_set_get_names_remove(meta: Metadata) -> None:
    assert meta.xattrs.get(ROOT_INO, b"user.a") is None
    meta.xattrs.set(ROOT_INO, b"user.b", b"")
    meta.xattrs.set(ROOT_INO, b"user.a", b"one")
    meta.xattrs.set(ROOT_INO, b"user.a", b"\0two")
    assert meta.xattrs.get(ROOT_INO, b"user.a") == b"\0two"
    assert meta.xattrs.get(ROOT_INO, b"user.b") == b""
    assert meta.xattrs.names(ROOT_INO) == [b"user.a", b"user.b"]
    assert meta.xattrs.names(ROOT_INO + 1) == []
    assert meta.xattrs.remove(ROOT_INO, b"user.a")
    assert not meta.xattrs.remove(ROOT_INO, b"user.a")
    assert meta.xattrs.names(ROOT_INO) == [b"user.b"]


def test_large_values_bring_the_next_commit_nearer(meta: Metadata) -> None:
    """Two thousand values of 64 KiB would be a changeset of 125 MiB."""
    for number in range(9):
        meta.xattrs.set(ROOT_INO, b"user.%d" % number, bytes(limits.XATTR_VALUE_BYTES_MAX))
    assert meta.database.changeset_bytes > limits.COMMIT_CHANGESET_BYTES


def test_a_value_that_grows_counts_as_it_is(meta: Metadata) -> None:
    meta.xattrs.set(ROOT_INO, b"user.a", b"small")
    before = meta.database.changeset_bytes
    meta.xattrs.set(ROOT_INO, b"user.a", bytes(limits.XATTR_VALUE_BYTES_MAX))
    assert meta.database.changeset_bytes - before >= limits.XATTR_VALUE_BYTES_MAX - 5
