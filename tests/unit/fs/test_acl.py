"""ACL arithmetic against the machine's own: each rule is tried on a file of a local file system and here.

The tests are skipped where the temporary directory has no POSIX ACLs. They need no privileges: who owns a file may
set its ACL, and permissions are compared as numbers, not by trying them.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ciaosfs.base.errors import FsError
from ciaosfs.fs import acl
from ciaosfs.fs.acl import Entry

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NO_ID = 0xFFFFFFFF
ACCESS, DEFAULT = acl.ACCESS.decode(), acl.DEFAULT.decode()
MINIMAL = [Entry(USER_OBJ, 7, NO_ID), Entry(GROUP_OBJ, 5, NO_ID), Entry(OTHER, 4, NO_ID)]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory on a file system with ACLs, with the umask out of the way."""
    old = os.umask(0)
    try:
        with TemporaryDirectory() as name:
            path = Path(name)
            (path / "probe").touch()
            try:
                os.setxattr(path / "probe", ACCESS, acl.encode(MINIMAL))
            except OSError as error:
                pytest.skip(f"no POSIX ACLs here: {error}")
            yield path
    finally:
        os.umask(old)


perms = st.integers(0, 7)
modes = st.integers(0, 0o777)


@st.composite
def acls(draw: st.DrawFn) -> list[Entry]:
    """Well-formed ones, in the order the kernel wants."""
    users = sorted(draw(st.sets(st.integers(0, 70_000), max_size=3)))
    groups = sorted(draw(st.sets(st.integers(0, 70_000), max_size=3)))
    has_mask = bool(users or groups) or draw(st.booleans())
    return [
        Entry(USER_OBJ, draw(perms), NO_ID),
        *[Entry(USER, draw(perms), user) for user in users],
        Entry(GROUP_OBJ, draw(perms), NO_ID),
        *[Entry(GROUP, draw(perms), group) for group in groups],
        *([Entry(MASK, draw(perms), NO_ID)] if has_mask else []),
        Entry(OTHER, draw(perms), NO_ID),
    ]


@st.composite
def odd_acls(draw: st.DrawFn) -> bytes:
    """Mostly malformed: entries dropped, doubled, swapped, with wrong bits, tags, ids; heads and lengths too."""
    entries = [list(entry) for entry in draw(acls())]
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(entries) - 1)) if entries else 0
        change = draw(st.sampled_from(["drop", "double", "swap", "perm", "tag", "id", "clear"]))
        if change == "clear" or not entries:
            entries = []
        elif change == "drop":
            del entries[at]
        elif change == "double":
            entries.insert(at, list(entries[at]))
        elif change == "swap":
            other = draw(st.integers(0, len(entries) - 1))
            entries[at], entries[other] = entries[other], entries[at]
        elif change == "perm":
            entries[at][1] = draw(st.sampled_from([8, 15, 0x8000]))
        elif change == "tag":
            entries[at][0] = draw(st.sampled_from([0, 3, 64, MASK, GROUP]))
        else:
            entries[at][2] = draw(st.sampled_from([0, 5, NO_ID, NO_ID - 1]))
    version = draw(st.sampled_from([2, 2, 2, 2, 1, 3]))
    value = struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    value = value[: len(value) - draw(st.sampled_from([0, 0, 0, 0, 1, 4]))]
    assume(value)  # an empty value removes the ACL: `xattrs` sees to that
    return value


def plain(entries: list[Entry]) -> list[Entry]:
    """Without the ids of entries that have none: the kernel writes them its own way."""
    return [entry if entry.tag in (USER, GROUP) else entry._replace(id=0) for entry in entries]


def access_of(path: Path) -> list[Entry] | None:
    try:
        return plain(acl.decode(os.getxattr(path, ACCESS)))
    except OSError as error:
        assert error.errno == errno.ENODATA
        return None


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@settings(max_examples=150, deadline=None)
@given(acls())
def test_what_is_written_is_read_back(entries: list[Entry]) -> None:
    assert acl.decode(acl.encode(entries)) == entries


@settings(max_examples=400, deadline=None)
@given(odd_acls())
def test_what_the_kernel_refuses_is_refused(place: Path, value: bytes) -> None:
    path = place / "judged"
    path.touch()
    judged = 0
    try:
        os.setxattr(path, ACCESS, value)
    except OSError as error:
        judged = error.errno or -1
    ours = 0
    try:
        acl.decode(value)
    except FsError as error:
        ours = error.errno
    assert errno.errorcode.get(ours, "fine") == errno.errorcode.get(judged, "fine")


@settings(max_examples=150, deadline=None)
@given(acls(), modes)
def test_setting_an_acl_sets_the_mode(place: Path, entries: list[Entry], mode: int) -> None:
    path = place / "set"
    path.touch()
    os.setxattr(path, ACCESS, b"\2\0\0\0")
    path.chmod(mode)
    os.setxattr(path, ACCESS, acl.encode(entries))
    assert acl.mode_of(entries, mode) == mode_of(path)
    assert acl.is_minimal(entries) == (access_of(path) is None)


@settings(max_examples=150, deadline=None)
@given(acls(), modes)
def test_chmod_changes_the_acl(place: Path, entries: list[Entry], mode: int) -> None:
    path = place / "changed"
    path.touch()
    os.setxattr(path, ACCESS, acl.encode(entries))
    path.chmod(mode)
    ours = acl.with_mode(entries, mode)
    assert mode_of(path) == mode
    found = access_of(path)
    assert found == (None if acl.is_minimal(ours) else plain(ours))


@settings(max_examples=150, deadline=None)
@given(acls(), modes, st.booleans())
def test_children_inherit(place: Path, entries: list[Entry], mode: int, is_directory: bool) -> None:
    with TemporaryDirectory(dir=place) as name:
        parent = Path(name)
        os.setxattr(parent, DEFAULT, acl.encode(entries))
        child = parent / "child"
        if is_directory:
            child.mkdir(mode)
        else:
            os.close(os.open(child, os.O_CREAT | os.O_WRONLY, mode))
        ours_mode, ours = acl.inherit(entries, mode)
        assert ours_mode == mode_of(child)
        assert access_of(child) == (None if acl.is_minimal(ours) else plain(ours))
        if is_directory:
            assert plain(acl.decode(os.getxattr(child, DEFAULT))) == plain(entries)
        child.chmod(0o700)


@settings(max_examples=50, deadline=None)
@given(acls(), st.integers(0, 0o7777))
def test_kind_and_special_bits_are_left_alone(entries: list[Entry], mode: int) -> None:
    assert acl.mode_of(entries, stat.S_IFREG | mode) & ~0o777 == stat.S_IFREG | mode & 0o7000
    assert acl.inherit(entries, stat.S_IFDIR | mode)[0] & ~0o777 == stat.S_IFDIR | mode & 0o7000


@pytest.mark.skipif(shutil.which("setfacl") is None, reason="setfacl is not installed")
@pytest.mark.parametrize("spec", ["u:1:rwx", "g:2:r,u:3:-", "u:1:rw,m::r", "u::rwx,g::-,o::x"])
def test_what_setfacl_writes_is_understood(place: Path, spec: str) -> None:
    path = place / f"by setfacl {spec}"
    path.touch(0o640)
    subprocess.run(["setfacl", "-m", spec, str(path)], check=True)
    try:
        value = os.getxattr(path, ACCESS)
    except OSError:
        value = b""
    if value:
        entries = acl.decode(value)
        assert acl.encode(entries) == value
        assert acl.mode_of(entries, 0) == mode_of(path)
        assert acl.with_mode(entries, mode_of(path)) == entries
