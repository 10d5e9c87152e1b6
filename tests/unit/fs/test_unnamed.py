"""Files that are made without a name: what nobody sees of them, what they are once they have one, what is left of them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from trio.testing import trio_test

from ciaosfs.base.errors import FsError
from ciaosfs.codec.parts import encode_parts
from ciaosfs.fs import acl
from ciaosfs.fs.attributes import SetAttributes
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.fs.requester import ROOT
from ciaosfs.fs.unnamed import Naming
from ciaosfs.fs.xattrs import PARTS
from ciaosfs.meta.inodes import ROOT_INO
from tests.support.builders import (
    WHO,
    Store,
    complaints,
    eventually,
    files_in,
    files_of,
    get,
    put,
    put_unnamed,
)

LARGE = bytes(range(256)) * 4096


def make(tmp_path: Path) -> Store:
    return Store.make(tmp_path / "store", data_count=1, parity_count=1)


async def check_refused(fs: FileSystem, fh: int, name: bytes, naming: Naming, code: int) -> None:
    with pytest.raises(FsError) as caught:
        await fs.publish(fh, ROOT_INO, name, naming)
    assert errno.errorcode[caught.value.errno] == errno.errorcode[code]


@trio_test
async def test_it_is_nowhere_until_it_is_whole_and_everywhere_then(tmp_path: Path) -> None:
    async with make(tmp_path).open() as fs:
        fh = await put_unnamed(fs, LARGE)
        assert await files_in(fs) == {}
        values = {PARTS: encode_parts([1, len(LARGE) - 1]), b"user.note": b"n"}
        made, former = await fs.publish(fh, ROOT_INO, b"new", Naming(values=values))
        assert former is None
        assert (made.nlink, made.mode, made.size, made.uid) == (1, stat.S_IFREG | 0o644, len(LARGE), WHO.uid)
        assert {name: fs.getxattr(made.ino, name) for name in fs.listxattr(made.ino)} == values
        assert await get(fs, b"new") == LARGE
        fs.release(fh)
        fs.forget([made.ino])
        assert await get(fs, b"new") == LARGE


@trio_test
async def test_what_has_the_name_decides(tmp_path: Path) -> None:
    async with make(tmp_path).open() as fs:
        old = await put(fs, b"old", b"old")
        other = await put(fs, b"other", b"other")
        folder = (await fs.mkdir(ROOT_INO, b"folder", 0o755, WHO)).ino
        link = (await fs.symlink(ROOT_INO, b"link", b"old", WHO)).ino
        fh = await put_unnamed(fs, b"new")
        await check_refused(fs, fh, b"old", Naming(), errno.EEXIST)
        await check_refused(fs, fh, b"old", Naming(other), errno.ESTALE)
        await check_refused(fs, fh, b"none", Naming(old), errno.ENOENT)
        await check_refused(fs, fh, b"folder", Naming(folder), errno.EISDIR)
        await check_refused(fs, fh, b"link", Naming(link), errno.EINVAL)
        await check_refused(fs, fh, b"n" * 256, Naming(), errno.ENAMETOOLONG)
        assert await get(fs, b"old") == b"old"
        await fs.link(old, ROOT_INO, b"second name")
        made, former = await fs.publish(fh, ROOT_INO, b"old", Naming(old))
        assert former is not None and (former.ino, former.nlink) == (old, 1)
        assert await get(fs, b"old") == b"new"
        assert await get(fs, b"second name") == b"old"
        fs.release(fh)
        assert fs.getattr(made.ino).nlink == 1


@trio_test
async def test_a_replaced_file_stays_for_who_has_it_open_and_goes_when_it_is_forgotten(
    tmp_path: Path,
) -> None:
    store = make(tmp_path)
    async with store.open() as fs:
        old = await put(fs, b"name", LARGE)
        reading = await fs.open(old, os.O_RDONLY, WHO)
        fh = await put_unnamed(fs, b"new")
        await fs.publish(fh, ROOT_INO, b"name", Naming(old))
        fs.release(fh)
        fs.forget([old])
        assert bytes(await fs.read(reading, 0, 300)) == LARGE[:300]
        fs.release(reading)
        fs.forget([old])
        with pytest.raises(FsError):
            fs.getattr(old)
    assert complaints(store.database) == []


@trio_test
async def test_what_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    store = make(tmp_path)
    async with store.open() as fs:
        count = fs.inode_count()
        for is_synced in (False, True):
            fh = await put_unnamed(fs, os.urandom(3_000_000))
            if is_synced:
                await fs.sync()
            fs.give_up(fh)
            await eventually(lambda: fs.inode_count() == count)
        await fs.sync()
        await fs._reclaimer.wait_discarded()
        status = fs.status()
        assert (status.pending_bytes, status.open_handles, len(fs._files)) == (0, 0, 0)
        await put(fs, b"change", b"")
        await fs.sync()
        assert fs._meta.stripes.dead(1) == []
        assert not fs._meta.stripes.ids_after(0)


@trio_test
async def test_a_crash_leaves_nothing_of_it(tmp_path: Path) -> None:
    store = make(tmp_path)
    async with store.open() as fs:
        await put(fs, b"name", b"old")
        await put_unnamed(fs, os.urandom(1_000_000))
        await fs.sync()
        killed = store.copy(tmp_path / "killed")
        assert await files_in(fs) == {b"name": b"old"}
    assert await files_of(killed) == {b"name": b"old"}
    async with killed.open() as fs:
        await eventually(lambda: not fs._meta.inodes.orphans())
    assert complaints(killed.database) == []
    async with store.open() as fs:  # and what a client left when the daemon ended in good order
        await eventually(lambda: not fs._meta.inodes.orphans())


@trio_test
async def test_it_inherits_when_it_gets_its_name(tmp_path: Path) -> None:
    async with make(tmp_path).open() as fs:
        folder = (await fs.mkdir(ROOT_INO, b"folder", 0o2775, WHO)).ino
        await fs.setattr(folder, SetAttributes(gid=77), WHO)
        entries = [acl.Entry(1, 7, 0xFFFFFFFF), acl.Entry(2, 6, 9), acl.Entry(4, 5, 0xFFFFFFFF)]
        default = acl.encode([*entries, acl.Entry(16, 7, 0xFFFFFFFF), acl.Entry(32, 0, 0xFFFFFFFF)])
        await fs.setxattr(folder, acl.DEFAULT, default, WHO)
        await fs.setxattr(folder, b"user.ciaos.compression", b"none", WHO)
        fh = await fs.create_unnamed(folder, WHO)
        made, _ = await fs.publish(fh, folder, b"new", Naming(permissions=0o640))
        plain = await fs.mknod(folder, b"plain", stat.S_IFREG | 0o640, 0, WHO)
        assert (
            made[1:2] + made[4:5] + made[12:13] == plain[1:2] + plain[4:5] + plain[12:13]
        )  # mode, gid, flags
        assert fs.getxattr(made.ino, acl.ACCESS) == fs.getxattr(plain.ino, acl.ACCESS)
        fs.release(fh)


@trio_test
async def test_what_replaces_a_file_follows_its_permissions_unless_it_is_given_some(tmp_path: Path) -> None:
    async with make(tmp_path).open() as fs:
        old = await put(fs, b"name", b"old")
        access = acl.encode([acl.Entry(1, 6, 0xFFFFFFFF), acl.Entry(2, 6, 9), acl.Entry(4, 4, 0xFFFFFFFF),
                             acl.Entry(16, 6, 0xFFFFFFFF), acl.Entry(32, 0, 0xFFFFFFFF)])  # fmt: skip
        await fs.setxattr(old, acl.ACCESS, access, WHO)
        await fs.setattr(old, SetAttributes(mode=0o4660), ROOT)
        fh = await put_unnamed(fs, b"new")
        made, _ = await fs.publish(fh, ROOT_INO, b"name", Naming(old, permissions=None))
        assert made.mode == stat.S_IFREG | 0o660
        assert fs.getxattr(made.ino, acl.ACCESS) == fs.getxattr(old, acl.ACCESS)
        fs.release(fh)
        fh = await put_unnamed(fs, b"newer")
        newer, _ = await fs.publish(fh, ROOT_INO, b"name", Naming(made.ino, permissions=0o600))
        assert newer.mode == stat.S_IFREG | 0o600
        assert fs.listxattr(newer.ino) == []
        fs.release(fh)


@pytest.mark.parametrize(
    "value", [b"", b"\x01", b"\x02\x05\x01", b"\x01\x05", b"\x01\x05\x01\x05\x01", b"\x01" * 70_000]
)
@trio_test
async def test_a_list_of_parts_that_is_none_is_refused(tmp_path: Path, value: bytes) -> None:
    async with make(tmp_path).open() as fs:
        ino = await put(fs, b"name", b"12345")
        with pytest.raises(FsError):
            await fs.setxattr(ino, PARTS, value, WHO)
        with pytest.raises(FsError, match="Only a regular file"):
            await fs.setxattr(ROOT_INO, PARTS, encode_parts([5]), WHO)
        await fs.setxattr(ino, PARTS, encode_parts([5]), WHO)
