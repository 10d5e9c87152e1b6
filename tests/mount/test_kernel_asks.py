"""What the kernel asks for by itself: the capabilities of a file, inodes it has forgotten, whose group an ACL is set by."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from pathlib import Path

import pytest

from tests.support.mount import MountedStore, drop_caches

CAPABILITY = "security.capability"
NET_RAW = struct.pack("<IIIIII", 0x03000000, 1 << 13, 0, 0, 0, 1000)
"""Version 3, of one capability, for the user namespace whose root is 1000."""
STRANGER = 4711
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.mark.root
def test_a_capability_is_read_back_and_goes_with_the_first_write(
    shared_mount: MountedStore, workdir: Path
) -> None:
    program = workdir / "program"
    program.write_bytes(b"binary")
    os.setxattr(program, CAPABILITY, NET_RAW)
    assert os.getxattr(program, CAPABILITY) == NET_RAW
    shared_mount.remount()
    assert os.getxattr(program, CAPABILITY) == NET_RAW
    with program.open("ab") as file:
        file.write(b", changed")
    assert os.listxattr(program) == []
    with pytest.raises(OSError) as raised:
        os.getxattr(program, CAPABILITY)
    assert raised.value.errno == errno.ENODATA


@pytest.mark.root
def test_file_handles_outlive_the_kernels_memory_and_the_mount(
    shared_mount: MountedStore, workdir: Path
) -> None:
    (workdir / "below" / "deep").mkdir(parents=True)
    paths = [workdir, workdir / "below" / "deep", workdir / "below" / "deep" / "file"]
    paths[-1].write_text("content")
    handles = [_handle_of(path) for path in paths]
    for forget in (drop_caches, shared_mount.remount):
        forget()
        for path, handle in zip(paths, handles, strict=True):
            descriptor = _open_handle(shared_mount.path, handle)
            assert os.fstat(descriptor).st_ino == path.stat().st_ino
            os.close(descriptor)
    paths[-1].unlink()
    drop_caches()
    with pytest.raises(OSError) as raised:
        _open_handle(shared_mount.path, handles[-1])
    assert raised.value.errno == errno.ESTALE


@pytest.mark.root
@pytest.mark.parametrize(("groups", "kept"), [([], False), ([1, STRANGER + 1], True)])
def test_an_acl_set_by_a_stranger_to_the_group_takes_the_set_group_id_bit(
    workdir: Path, groups: list[int], kept: bool
) -> None:
    for path in (workdir / "file", workdir / "directory"):
        path.mkdir() if path.name == "directory" else path.touch()
        os.chown(path, STRANGER, STRANGER + 1)
        path.chmod(0o2755)
        _set_acl_as_stranger(groups, path)
        assert stat.S_IMODE(path.stat().st_mode) == (0o2777 if kept else 0o777)


def _acl(mode: int) -> bytes:
    """The access ACL that says what `mode` says."""
    entries = ((1, mode >> 6 & 7), (4, mode >> 3 & 7), (32, mode & 7))
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, perm, 0xFFFFFFFF) for tag, perm in entries
    )


def _set_acl_as_stranger(groups: list[int], path: Path) -> None:
    """setxattr(2) in a child process of user and group STRANGER that is in `groups`, too; it must succeed."""
    child = os.fork()
    if child == 0:
        try:
            os.chdir(path.parent)  # the way there is closed to others
            os.setgroups(groups)
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            os.setxattr(path.name, "system.posix_acl_access", _acl(0o777))
        except BaseException:  # noqa: BLE001 - the parent is told
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def _handle_of(path: Path) -> bytes:
    """struct file_handle: size, type, bytes (name_to_handle_at(2))."""
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 8 + 128)
    mount = ctypes.c_int()
    if _libc.name_to_handle_at(-100, os.fsencode(path), handle, ctypes.byref(mount), 0) != 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at", os.fspath(path))
    return handle.raw


def _open_handle(mount: Path, handle: bytes) -> int:
    """open_by_handle_at(2), for reading."""
    at = os.open(mount, os.O_RDONLY)
    try:
        descriptor: int = _libc.open_by_handle_at(
            at, ctypes.create_string_buffer(handle, len(handle)), os.O_RDONLY
        )
    finally:
        os.close(at)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "open_by_handle_at")
    return descriptor
