"""The kernel's table of mounts is read right, whatever the names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ciaosfs.base.errors import MountError, StoreError, UsageError
from ciaosfs.client import locate, mounts
from ciaosfs.client.mounts import Mount, parse_mountinfo, source_of

MOUNTINFO = rb"""22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:40 / /mnt/ciaos rw,nosuid,nodev,relatime shared:9 - fuse.ciaosfs /srv/store rw,user_id=0
41 22 0:41 / /mnt/with\040space\134 rw - fuse.ciaosfs /srv/%C3%A4%2Cb%20c rw
43 22 0:43 / /users/u/ciaos rw - fuse.ciaosfs /users/u/store rw,user_id=1000,group_id=1000
42 40 0:42 / /mnt/ciaos/inner rw - tmpfs tmpfs rw
broken line
"""


@pytest.fixture
def mountinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mountinfo"
    path.write_bytes(MOUNTINFO)
    monkeypatch.setattr(mounts, "MOUNTINFO", path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return path


def test_mountinfo_is_parsed() -> None:
    parsed = parse_mountinfo(MOUNTINFO)
    assert len(parsed) == 5
    assert parsed[1] == Mount(Path("/mnt/ciaos"), "0:40", "fuse.ciaosfs", "/srv/store")
    assert parsed[2].mountpoint == Path("/mnt/with space\\")
    assert parsed[2].store == Path("/srv/ä,b c")
    assert parsed[0].store is None
    assert [mount.user_id for mount in parsed] == [0, 0, 0, 1000, 0]


@pytest.mark.parametrize("path", ["/srv/store", "/srv/ä,b\\c %41", os.fsdecode(b"/srv/\xff\n")])
def test_a_store_survives_as_a_mount_source(path: str) -> None:
    source = source_of(Path(path))
    assert source.isascii()
    assert source.isprintable()
    assert not set(source) & set(",\\")
    assert Mount(Path("/m"), "0:1", mounts.FSTYPE, source).store == Path(path)


def test_a_path_in_a_mount_leads_to_its_store(mountinfo: Path) -> None:
    target = locate.locate(Path("/mnt/ciaos/some/file"))
    assert target.store == Path("/srv/store")
    assert target.mount is not None
    assert target.mount.mountpoint == Path("/mnt/ciaos")


@pytest.mark.parametrize(
    ("link", "to", "named", "meant"),
    [
        ("link", "MOUNT", "link", "MOUNT"),
        ("link", "MOUNT/deep/file", "link", "MOUNT/deep/file"),
        ("link", "MOUNT", "link/file", "MOUNT/file"),
        ("link", "mount/../mount/x", "link", "MOUNT/x"),
        ("link", "link", "link", "BASE/link"),
        ("mount/inside", "/elsewhere", "mount/inside", "MOUNT/inside"),
    ],
)
def test_links_to_a_mount_are_followed_without_a_look_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str, to: str, named: str, meant: str
) -> None:
    mountpoint = tmp_path / "mount"
    mountpoint.mkdir()
    (tmp_path / link).symlink_to(to.replace("MOUNT", str(mountpoint)))
    table = tmp_path / "mountinfo"
    table.write_text(f"40 22 0:40 / {mountpoint} rw - fuse.ciaosfs /srv/store rw,user_id=0\n")
    monkeypatch.setattr(mounts, "MOUNTINFO", table)
    readlink = Path.readlink

    def looked_at(path: Path) -> Path:
        assert path != mountpoint
        return readlink(path)

    monkeypatch.setattr(Path, "readlink", looked_at)
    wanted = Path(meant.replace("MOUNT", str(mountpoint)).replace("BASE", str(tmp_path)))
    assert mounts.resolve_mountpoint(tmp_path / named) == wanted
    if wanted.is_relative_to(mountpoint):
        assert locate.locate(tmp_path / named).store == Path("/srv/store")


def test_a_path_in_another_mount_inside_is_not_the_stores(mountinfo: Path) -> None:
    with pytest.raises(StoreError, match="not a ciaosfs store"):
        locate.locate(Path("/mnt/ciaos/inner/file"))


def test_without_a_path_the_users_own_mount_is_meant(
    mountinfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"/mnt/ciaos, /mnt/with space"):
        locate.locate(None)
    mountinfo.write_bytes(MOUNTINFO.splitlines()[1])
    assert locate.locate(None).store == Path("/srv/store")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    mountinfo.write_bytes(MOUNTINFO)
    assert locate.locate(None).store == Path("/users/u/store")
    mountinfo.write_bytes(b"")
    with pytest.raises(StoreError, match="No store is mounted"):
        locate.locate(None)


def test_unmounting_what_is_not_mounted(tmp_path: Path) -> None:
    with pytest.raises(MountError):
        mounts.unmount(tmp_path)
