"""Who has a token on a guarded mount, and until when: sessions, what they have open, and what the kernel keeps."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.actors import Actor, call
from tests.support.guarded import ALICE, BOB, GuardedMount, guarded_mount
from tests.support.mount import drop_caches, wait_until

pytestmark = pytest.mark.root

END_S = 1.0
"""Within this a token that ended has ended everywhere."""
_AT_EMPTY_PATH, _AT_STATX_DONT_SYNC = 0x1000, 0x4000
_kept: dict[str, Any] = {}


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedMount]:
    with guarded_mount([("bob at alice", "alice", "shared"), ("all of alice", "alice", "")]) as mount:
        yield mount


@pytest.fixture
def folder(guarded: GuardedMount, request: pytest.FixtureRequest) -> Path:
    """A directory of alice's for one test."""
    path = guarded.path / "alice" / "".join(c if c.isalnum() else "-" for c in request.node.name)
    path.mkdir()
    os.chown(path, ALICE, ALICE)
    return path


# What processes are told to do


def write_file(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def read_file(path: Path) -> bytes:
    return path.read_bytes()


def stat_in_thread(path: Path) -> int:
    found: list[int] = []

    def look() -> None:
        try:
            found.append(path.stat().st_size)
        except OSError as error:
            found.append(-(error.errno or 1))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


def map_file(descriptor: int, length: int) -> None:
    _kept["map"] = mmap.mmap(descriptor, length)


def mapped(start: int, length: int) -> bytes:
    content: bytes = _kept["map"][start : start + length]
    return content


def set_mapped(start: int, data: bytes) -> None:
    _kept["map"][start : start + len(data)] = data


def splice(descriptor: int, length: int) -> bytes:
    """Read from the page cache without read(2)."""
    out, into = os.pipe()
    try:
        return os.read(out, os.splice(descriptor, into, length, offset_src=0))
    finally:
        os.close(out)
        os.close(into)


def reopen(descriptor: int) -> None:
    os.close(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY))


def statx_unsynced(descriptor: int) -> bool:
    """Whether the kernel tells the attributes it has, without asking anybody."""
    buffer = ctypes.create_string_buffer(256)
    flags = _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.statx(descriptor, b"", flags, 0x7FF, buffer) == 0)


ON_FILE: dict[str, Callable[[int], object]] = {
    "read": lambda fd: os.pread(fd, 10, 0),
    "write": lambda fd: os.pwrite(fd, b"after", 0),
    "stat": os.fstat,
    "truncate": lambda fd: os.ftruncate(fd, 1),
    "chmod": lambda fd: os.fchmod(fd, 0o600),
    "getxattr": lambda fd: os.listxattr(fd),
    "reopen": reopen,
    "seek to the end": lambda fd: os.lseek(fd, 0, os.SEEK_END),
}


def use(what: str, descriptor: int) -> None:
    ON_FILE[what](descriptor)


def uses(actor: Actor, descriptor: int) -> dict[str, int]:
    return {what: actor.fails(use, what, descriptor) for what in ON_FILE}


# Sessions


def test_children_and_threads_have_the_token_and_new_sessions_have_not(
    guarded: GuardedMount, folder: Path
) -> None:
    with guarded.actor(ALICE, "alice rwd") as alice:
        alice.do(write_file, folder / "file", b"four")
        assert alice.do(stat_in_thread, folder / "file") == 4
        child = alice.fork()
        grandchild = child.fork()
        daemon = alice.fork(new_session=True)
        for actor in (child, grandchild):
            assert actor.do(read_file, folder / "file") == b"four"
        for actor in (daemon, daemon.fork()):
            assert actor.fails(read_file, folder / "file") == errno.EACCES
            assert actor.fails(os.stat, guarded.path) == errno.EACCES
        assert daemon.do(call, guarded.control, "whoami")["by"] == "nothing"
        daemon.login(guarded.control, guarded.secrets["alice r"])
        assert daemon.do(read_file, folder / "file") == b"four"
        assert daemon.fails(write_file, folder / "file", b"x") == errno.EACCES
        child.logout(guarded.control)
        for actor in (alice, child, grandchild):
            assert actor.fails(os.stat, folder) == errno.EACCES
        assert daemon.do(read_file, folder / "file") == b"four"


def test_sessions_of_one_user_and_users_of_one_session_have_their_own(
    guarded: GuardedMount, folder: Path
) -> None:
    os.chmod(folder, 0o777)
    with guarded.actor(ALICE, "alice rwd") as one, guarded.actor(ALICE, "bob rwd") as other:
        assert one.fails(os.stat, folder) == other.fails(os.stat, guarded.path / "bob") == 0
        assert one.fails(os.stat, guarded.path / "bob") == other.fails(os.stat, folder) == errno.EACCES
    with guarded.actor(0, "alice r") as root:
        # As by su(1): the same session, and somebody else in it.
        alice, bob = root.fork(ALICE), root.fork(BOB)
        for actor in (alice, bob):
            assert actor.fails(os.stat, folder) == errno.EACCES
        alice.login(guarded.control, guarded.secrets["alice rwd"])
        alice.do(write_file, folder / "file", b"")
        assert bob.fails(os.stat, folder) == errno.EACCES
        assert root.fails(write_file, folder / "file", b"x") == errno.EACCES  # which has its own
        alice.logout(guarded.control)
        assert root.do(read_file, folder / "file") == b""


def test_the_owner_needs_no_token_and_is_judged_by_one(guarded: GuardedMount, folder: Path) -> None:
    with guarded.actor(0) as root:
        root.do(write_file, folder / "file", b"root")
        root.login(guarded.control, guarded.secrets["bob r"])
        assert root.fails(os.stat, folder) == errno.EACCES
        assert root.do(os.listdir, guarded.path / "bob") == os.listdir(guarded.path / "bob")
        root.logout(guarded.control)
        root.do(write_file, folder / "file", b"root again")


# Ends


def end_by_logout(guarded: GuardedMount, actor: Actor, token: dict[str, Any]) -> None:
    assert actor.logout(guarded.control)["was_logged_in"]


def end_by_revocation(guarded: GuardedMount, actor: Actor, token: dict[str, Any]) -> None:
    assert call(guarded.control, "token-revoke", id=token["token"]["id"])["ended"] == 1


def end_by_time(guarded: GuardedMount, actor: Actor, token: dict[str, Any]) -> None:
    wait_until(lambda: time.time_ns() >= token["token"]["expires_ns"], "it takes longer to expire")


ENDS = {"logout": end_by_logout, "revocation": end_by_revocation, "expiry": end_by_time}
SHORT_LIFE_S = 1.5
"""Longer than what is done with it takes."""


@pytest.mark.parametrize("how", ENDS)
def test_an_end_reaches_what_is_open_and_loses_nothing(guarded: GuardedMount, folder: Path, how: str) -> None:
    path = folder / "file"
    life_s = SHORT_LIFE_S if how == "expiry" else None
    asked = {"user": "alice", "scopes": ["read", "write", "delete"], "ttl_s": life_s}
    token = call(guarded.control, "token-create", **asked)
    with guarded.actor(ALICE) as alice, guarded.actor(ALICE, "alice rwd") as other:
        alice.login(guarded.control, token["secret"])
        alice.do(write_file, path, b"")
        descriptor = alice.do(os.open, path, os.O_RDWR)
        directory = alice.do(os.open, folder, os.O_RDONLY)
        child, mapper, reader = alice.fork(), alice.fork(), alice.fork()
        assert set(uses(child, descriptor).values()) == {0}
        alice.do(write_file, path, bytes(mmap.PAGESIZE * 3))
        for mapping in (mapper, reader):
            mapping.do(map_file, descriptor, mmap.PAGESIZE)
        mapper.do(set_mapped, 100, b"mapped")
        alice.do(os.pwrite, descriptor, b"written", mmap.PAGESIZE)
        written_ns = time.time_ns()
        ENDS[how](guarded, alice, token)
        ended_s = time.monotonic()
        wait_until(lambda: alice.fails(os.stat, path) == errno.EACCES, "the token goes on", END_S)
        for actor in (alice, child):
            assert set(uses(actor, descriptor).values()) == {errno.EACCES}
            assert actor.fails(os.listdir, directory) == errno.EACCES
        wait_until(lambda: alice.fails(splice, descriptor, 1) != 0, "its pages stay readable", END_S)
        assert alice.fails(os.fsync, descriptor) == errno.EACCES
        with pytest.raises(EOFError):  # by SIGBUS
            reader.do(mapped, 0, 1)
        assert time.monotonic() - ended_s < END_S
        drop_caches(guarded.path)
        content = other.do(read_file, path)
        assert content[100:106] == b"mapped"
        assert content[mmap.PAGESIZE :][:7] == b"written"
        assert abs(path.stat().st_mtime_ns - written_ns) < 1e9
        assert alice.fails(os.close, descriptor) == 0


def test_a_session_takes_along_what_it_handed_on(guarded: GuardedMount, folder: Path) -> None:
    """A descriptor serves whoever has it as long as the session lives that opened it."""
    with guarded.actor(ALICE, "alice rwd") as other, guarded.actor(ALICE, "alice rwd") as alice:
        alice.do(write_file, folder / "file", b"content")
        descriptor = alice.do(os.open, folder / "file", os.O_RDWR)
        daemon = alice.fork(new_session=True)
        daemon.login(guarded.control, guarded.secrets["alice rwd"])
        assert daemon.do(os.pread, descriptor, 7, 0) == b"content"
        os.kill(alice.pid, 9)
        os.waitpid(alice.pid, 0)
        wait_until(
            lambda: daemon.fails(os.fsync, descriptor) == errno.EACCES, "it outlives the session", END_S
        )
        wait_until(lambda: daemon.fails(splice, descriptor, 7) != 0, "its pages stay", END_S)
        assert daemon.do(read_file, folder / "file") == other.do(read_file, folder / "file") == b"content"


# What the kernel keeps, and does by itself


def test_descriptors_do_not_serve_who_has_no_token(guarded: GuardedMount, folder: Path) -> None:
    """Inherited by who left the session, or the working directory. What is left is what asks nobody, see SEMANTICS.md."""
    with guarded.actor(ALICE, "alice rwd") as alice:
        alice.do(write_file, folder / "file", b"content")
        alice.do(os.chdir, folder)
        descriptor = alice.do(os.open, "file", os.O_RDWR)
        path_only = alice.do(os.open, "file", os.O_PATH)
        stranger = alice.fork(new_session=True)
        assert set(uses(stranger, descriptor).values()) == {errno.EACCES}
        for way in (
            ".",
            "file",
            "nothing",
            "..",
            f"/proc/self/fd/{path_only}",
            f"/proc/{alice.pid}/cwd/file",
        ):
            assert stranger.fails(os.stat, way) == errno.EACCES, way
        assert stranger.fails(os.open, "made", os.O_CREAT | os.O_WRONLY) == errno.EACCES
        assert stranger.do(splice, descriptor, 7) == b"content"
        assert stranger.do(statx_unsynced, descriptor)
        assert set(uses(alice, descriptor).values()) == {0}


def test_nothing_is_remembered_from_one_for_another(guarded: GuardedMount, folder: Path) -> None:
    """Names that are there and that are not, attributes, ACLs, targets of links, pages: right after the other saw them."""
    with guarded.actor(ALICE, "alice rwd") as alice, guarded.actor(ALICE, "bob rwd") as bob:
        alice.do(write_file, folder / "file", b"content")
        alice.do(os.symlink, "file", folder / "link")
        looks: list[tuple[Callable[..., object], Path]] = [
            (os.stat, folder / "file"),
            (read_file, folder / "file"),
            (os.readlink, folder / "link"),
            (os.listxattr, folder / "file"),
            (os.listdir, folder),
        ]
        for look, path in looks:
            alice.do(look, path)
            assert bob.fails(look, path) == errno.EACCES
            alice.do(look, path)
        assert alice.fails(os.stat, folder / "later") == errno.ENOENT
        assert bob.fails(os.stat, folder / "later") == errno.EACCES
        (folder / "later").touch()
        assert alice.fails(os.stat, folder / "later") == 0


def test_a_writer_is_not_failed_by_the_end_of_another(guarded: GuardedMount, folder: Path) -> None:
    """The kernel writes the pages of one through the handle of the other, which it opened last."""
    path = folder / "file"
    path.write_bytes(b"")
    os.chown(path, ALICE, ALICE)
    with guarded.actor(ALICE, "alice rwd") as staying, guarded.actor(ALICE, "alice rwd") as leaving:
        descriptor = staying.do(os.open, path, os.O_RDWR)
        reading = staying.do(os.open, path, os.O_RDONLY)
        last = leaving.do(os.open, path, os.O_RDWR)
        leaving.do(os.pwrite, last, b"leaving", 0)
        leaving.logout(guarded.control)
        for round_ in range(3):
            staying.do(os.pwrite, descriptor, b"staying%d" % round_, 4096 * round_)
            staying.do(os.fsync, descriptor if round_ else reading)
        staying.do(os.utime, path, ns=(1, 2))
        staying.do(os.close, descriptor)
        drop_caches(guarded.path)
        content = path.read_bytes()
    assert content[:8] == b"staying0" and content[4096:][:8] == b"staying1" and content[8192:] == b"staying2"
    assert path.stat().st_mtime_ns == 2


def test_a_sync_is_not_failed_by_times_that_another_changed(guarded: GuardedMount, folder: Path) -> None:
    """The kernel keeps times, and sends them as whoever syncs the file, closes it or removes one of its names."""
    path = folder / "file"
    path.write_bytes(b"content")
    os.link(path, folder / "other")
    os.chown(path, ALICE, ALICE)
    with (
        guarded.actor(ALICE, "alice r") as reader,
        guarded.actor(ALICE, "alice d") as remover,
        guarded.actor(ALICE, "alice rwd") as writer,
    ):
        descriptor = reader.do(os.open, path, os.O_RDONLY)
        remover.do(os.unlink, folder / "other")
        reader.do(os.fsync, descriptor)
        writing = writer.do(os.open, path, os.O_RDWR)
        writer.do(os.pwrite, writing, b"CONTENT", 0)
        reader.do(os.fsync, descriptor)
        writer.do(os.close, writing)
        mtime_ns = path.stat().st_mtime_ns
        assert reader.fails(os.utime, path, ns=(5, 6)) == errno.EACCES
        assert reader.fails(os.utime, path) == errno.EACCES
        assert path.stat().st_mtime_ns == mtime_ns


def test_what_was_written_before_an_exit_is_there(guarded: GuardedMount, folder: Path) -> None:
    """Killed with unwritten pages and mapped ones; nobody of the session is left to write them back."""
    with guarded.actor(ALICE, "alice rwd") as alice:
        for number in range(20):
            alice.do(write_file, folder / f"file{number}", b"x" * mmap.PAGESIZE)
        descriptor = alice.do(os.open, folder / "file0", os.O_RDWR)
        alice.do(map_file, descriptor, mmap.PAGESIZE)
        alice.do(set_mapped, 10, b"mapped")
        alice.do(os.pwrite, descriptor, b"more", mmap.PAGESIZE)
    drop_caches(guarded.path)
    content = (folder / "file0").read_bytes()
    assert content[10:16] == b"mapped" and content[mmap.PAGESIZE :] == b"more"
    assert all((folder / f"file{number}").stat().st_size == mmap.PAGESIZE for number in range(1, 20))


def test_what_a_mapping_writes_after_the_end_is_dropped_and_fails_nobody(
    guarded: GuardedMount, folder: Path
) -> None:
    """Its pages are in the kernel's cache again, because somebody else reads them: nobody asks the daemon about a store."""
    path = folder / "file"
    path.write_bytes(b"x" * mmap.PAGESIZE)
    os.chown(path, ALICE, ALICE)
    with guarded.actor(ALICE, "alice r") as reader, guarded.actor(ALICE, "alice rwd") as alice:
        descriptor = alice.do(os.open, path, os.O_RDWR)
        reading = reader.do(os.open, path, os.O_RDONLY)
        alice.do(map_file, descriptor, mmap.PAGESIZE)
        alice.logout(guarded.control)
        assert reader.do(os.pread, reading, 1, 0) == b"x"
        alice.do(set_mapped, 0, b"after")
        reader.do(os.fsync, reading)
        guarded.store.sync()
        wait_until(lambda: path.read_bytes()[:5] == b"xxxxx", "it is read still", END_S)
