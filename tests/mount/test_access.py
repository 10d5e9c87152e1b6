"""What a token lets its holder do on a guarded mount: every operation, with every token, everywhere."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.actors import Actor
from tests.support.caller import renameat2
from tests.support.guarded import ALICE, BOB, SCOPES, GuardedMount, guarded_mount

pytestmark = pytest.mark.root

NOREPLACE, EXCHANGE = 1, 2
_numbers = itertools.count()


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedMount]:
    with guarded_mount(
        [("alice deep", "alice", "deep/er"), ("alice nowhere", "alice", "not/there")]
    ) as mount:
        yield mount


# The operations, each on a directory with `file`, `other`, `link` and `empty` that belong to who asks


def read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def write_file(path: str, data: bytes = b"new", flags: int = os.O_WRONLY) -> None:
    descriptor = os.open(path, flags, 0o666)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def open_for(flags: int) -> Callable[[str], None]:
    def do(directory: str) -> None:
        os.close(os.open(f"{directory}/file", flags))

    return do


def create(directory: str) -> None:
    write_file(f"{directory}/made", flags=os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def create_to_read(directory: str) -> None:
    write_file(f"{directory}/made", flags=os.O_RDWR | os.O_CREAT | os.O_EXCL)


def append(directory: str) -> None:
    write_file(f"{directory}/file", flags=os.O_WRONLY | os.O_APPEND)


OPERATIONS: dict[str, tuple[str, Callable[[str], object]]] = {
    "stat directory": ("", lambda d: os.stat(d)),
    "stat file": ("", lambda d: os.stat(f"{d}/file")),
    "enter": ("", lambda d: os.chdir(d)),
    "access": ("", lambda d: os.stat(f"{d}/file") and os.access(f"{d}/file", os.R_OK)),
    "readlink": ("", lambda d: os.readlink(f"{d}/link")),
    "getxattr": ("", lambda d: os.getxattr(f"{d}/file", "user.x")),
    "listxattr": ("", lambda d: os.listxattr(f"{d}/file")),
    "statfs": ("", lambda d: os.statvfs(f"{d}/file")),
    "list": ("r", lambda d: os.listdir(d)),
    "read": ("r", lambda d: read_file(f"{d}/file")),
    "open to write": ("w", open_for(os.O_WRONLY)),
    "open to read and write": ("rw", open_for(os.O_RDWR)),
    "open to empty": ("w", open_for(os.O_WRONLY | os.O_TRUNC)),
    "append": ("w", append),
    "create": ("w", create),
    "create to read": ("rw", create_to_read),
    "mkdir": ("w", lambda d: os.mkdir(f"{d}/made")),
    "mknod": ("w", lambda d: os.mknod(f"{d}/made", stat.S_IFIFO | 0o644)),
    "symlink": ("w", lambda d: os.symlink("file", f"{d}/made")),
    "link": ("w", lambda d: os.link(f"{d}/file", f"{d}/made")),
    "rename": ("w", lambda d: os.rename(f"{d}/file", f"{d}/made")),
    "rename over": ("w", lambda d: os.rename(f"{d}/file", f"{d}/other")),
    "rename directory": ("w", lambda d: os.rename(f"{d}/empty", f"{d}/made")),
    "rename not over": ("w", lambda d: renameat2(f"{d}/file".encode(), f"{d}/made".encode(), NOREPLACE)),
    "exchange": ("w", lambda d: renameat2(f"{d}/file".encode(), f"{d}/empty".encode(), EXCHANGE)),
    "truncate": ("w", lambda d: os.truncate(f"{d}/file", 1)),
    "chmod": ("w", lambda d: os.chmod(f"{d}/file", 0o600)),
    "chown": ("w", lambda d: os.chown(f"{d}/file", -1, os.getgid())),
    "utime": ("w", lambda d: os.utime(f"{d}/file", ns=(1, 2))),
    "touch": ("w", lambda d: os.utime(f"{d}/file")),
    "setxattr": ("w", lambda d: os.setxattr(f"{d}/file", "user.y", b"y")),
    "removexattr": ("w", lambda d: os.removexattr(f"{d}/file", "user.x")),
    "unlink": ("d", lambda d: os.unlink(f"{d}/file")),
    "rmdir": ("d", lambda d: os.rmdir(f"{d}/empty")),
}


def attempt(operation: str, directory: str) -> int:
    """The errno of an operation; looked up by name, so that a process can be told."""
    try:
        OPERATIONS[operation][1](directory)
    except OSError as error:
        return error.errno or -1
    return 0


def prepare(parent: Path, uid: int = ALICE) -> str:
    """A new directory for one operation, made by the owner of the store."""
    directory = parent / f"d{next(_numbers)}"
    (directory / "empty").mkdir(parents=True)
    for name in ("file", "other"):
        (directory / name).write_bytes(b"content")
    (directory / "link").symlink_to("file")
    os.setxattr(directory / "file", "user.x", b"x")
    for path in (directory, *directory.iterdir()):
        os.chown(path, uid, uid, follow_symlinks=False)
    return os.fspath(directory)


def outcomes(actor: Actor, parent: Path) -> dict[str, int]:
    return {name: actor.do(attempt, name, prepare(parent)) for name in OPERATIONS}


@pytest.mark.parametrize("scopes", SCOPES)
def test_every_operation_needs_its_scopes(guarded: GuardedMount, scopes: str) -> None:
    with guarded.actor(ALICE, f"alice {scopes}") as actor:
        found = outcomes(actor, guarded.path / "alice")
    expected = {
        name: 0 if set(needs) <= set(scopes) else errno.EACCES for name, (needs, _) in OPERATIONS.items()
    }
    assert found == expected


@pytest.mark.parametrize("place", ["bob", "", "alice/deep"])
def test_outside_of_the_prefix_nothing_is_allowed(guarded: GuardedMount, place: str) -> None:
    """Beside it, at the root, and in a directory on the way to it; whatever is there belongs to who asks."""
    (guarded.path / "alice" / "deep" / "er").mkdir(parents=True, exist_ok=True)
    with guarded.actor(ALICE, "alice deep") as actor:
        assert set(outcomes(actor, guarded.path / place).values()) == {errno.EACCES}


def test_without_a_token_and_with_one_that_ended_nothing_is_allowed(guarded: GuardedMount) -> None:
    with guarded.actor(ALICE) as stranger, guarded.actor(ALICE, "alice rwd") as former:
        former.logout(guarded.control)
        for actor in (stranger, former):
            assert set(outcomes(actor, guarded.path / "alice").values()) == {errno.EACCES}


def test_permissions_hold_all_the_same(guarded: GuardedMount) -> None:
    with guarded.actor(BOB, "alice rwd") as bob:
        directory = prepare(guarded.path / "alice", ALICE)
        os.chmod(directory, 0o750)
        assert bob.do(attempt, "read", directory) == errno.EACCES
        os.chmod(directory, 0o755)
        assert bob.do(attempt, "read", directory) == 0
        assert bob.do(attempt, "create", directory) == errno.EACCES
        assert bob.do(attempt, "chmod", directory) == errno.EPERM


def test_what_is_there_cannot_be_told_from_what_is_not(guarded: GuardedMount) -> None:
    """By no call and no flag, whether or not the kernel knows the name."""
    secret = prepare(guarded.path / "bob")
    looks: list[Callable[..., object]] = [
        os.stat,
        os.lstat,
        os.listdir,
        os.readlink,
        os.mkdir,
        os.rmdir,
        os.unlink,
    ]
    with guarded.actor(ALICE) as nobody, guarded.actor(ALICE, "alice rwd") as alice:
        for there, nowhere in ((guarded.path / "bob", guarded.path / "bill"), (secret, secret + "x")):
            os.stat(there)
            for actor, look in itertools.product((nobody, alice), looks):
                assert actor.fails(look, there) == actor.fails(look, nowhere) == errno.EACCES
            flags = (os.O_PATH, os.O_RDONLY, os.O_CREAT | os.O_EXCL | os.O_WRONLY, os.O_DIRECTORY)
            for actor, flag in itertools.product((nobody, alice), flags):
                assert (
                    actor.fails(os.open, there, flag) == actor.fails(os.open, nowhere, flag) == errno.EACCES
                )
        assert nobody.fails(os.stat, guarded.path) == errno.EACCES
        assert alice.fails(os.stat, guarded.path) == 0
        assert alice.fails(os.listdir, guarded.path) == errno.EACCES
        os.setxattr(guarded.path, "user.x", b"x")
        assert alice.do(os.listxattr, guarded.path) == []
        assert alice.fails(os.getxattr, guarded.path, "user.x") == errno.ENODATA
        assert nobody.fails(os.listxattr, guarded.path) == errno.EACCES


def test_a_prefix_that_is_not_there_yet(guarded: GuardedMount) -> None:
    with guarded.actor(ALICE, "alice nowhere") as actor:
        place = guarded.path / "alice" / "not"
        assert actor.fails(os.stat, place) == errno.ENOENT  # the one name it may know
        assert actor.fails(os.stat, place.with_name("nope")) == errno.EACCES
        assert actor.fails(os.mkdir, place) == errno.EACCES
        (place / "there").mkdir(parents=True)
        os.chown(place / "there", ALICE, ALICE)
        assert actor.fails(os.mkdir, place / "there" / "made") == 0
        place.rename(guarded.path / "alice" / "moved")
        assert actor.fails(os.stat, guarded.path / "alice" / "moved" / "there") == errno.EACCES
        assert actor.fails(os.stat, place) == errno.ENOENT


# Ways out


def test_ways_out_of_the_prefix_are_closed(guarded: GuardedMount) -> None:
    mine, secret = prepare(guarded.path / "alice"), prepare(guarded.path / "bob", ALICE)
    outside = guarded.path / "bob"
    name = os.path.basename(secret)
    with guarded.actor(ALICE, "alice rwd") as alice:
        alice.do(os.chdir, mine)
        for way in (f"../../bob/{name}/file", f"{mine}/../../bob/{name}/file"):
            assert alice.fails(read_file, way) == errno.EACCES
        alice.do(os.symlink, secret, "out")
        alice.do(os.symlink, f"../../bob/{name}", "back")
        for way in ("out/file", "back/file", "out", "back"):
            assert alice.fails(read_file, way) == errno.EACCES
            assert alice.fails(write_file, way, b"x") == errno.EACCES
        assert alice.fails(os.link, f"{secret}/file", "stolen") == errno.EACCES
        assert alice.fails(os.rename, f"{secret}/file", "stolen") == errno.EACCES
        assert alice.fails(os.link, "file", outside / "given") == errno.EACCES
        for what in ("file", "empty"):
            assert alice.fails(os.rename, what, outside / "given") == errno.EACCES
        exchange = (f"{secret}/file".encode(), b"file", EXCHANGE)
        assert alice.fails(renameat2, *exchange) == errno.EACCES
        # Neither the top of the prefix nor what leads there can be moved or removed.
        for call in (os.rmdir, os.unlink):
            assert alice.fails(call, guarded.path / "alice") == errno.EACCES
        assert alice.fails(os.rename, guarded.path / "alice", guarded.path / "carol") == errno.EACCES
    assert not (outside / "given").exists()


def test_names_of_one_file_in_two_prefixes(guarded: GuardedMount) -> None:
    """Each may use it by the own name, and no longer when that is gone."""
    theirs, mine = Path(prepare(guarded.path / "bob")), Path(prepare(guarded.path / "alice"))
    (theirs / "file").chmod(0o666)
    os.link(theirs / "file", mine / "shared")
    with guarded.actor(ALICE, "alice rwd") as alice, guarded.actor(BOB, "bob rwd") as bob:
        for _ in range(2):
            assert alice.do(read_file, f"{mine}/shared") == bob.do(read_file, f"{theirs}/file") == b"content"
            assert alice.fails(os.stat, theirs / "file") == errno.EACCES
        alice.do(write_file, f"{mine}/shared", b"CONTENT")
        assert bob.do(read_file, f"{theirs}/file") == b"CONTENT"
        (theirs / "file").unlink()
        alice.do(os.chmod, mine / "shared", 0o600)
        assert alice.do(read_file, f"{mine}/shared") == b"CONTENT"
        os.link(mine / "shared", theirs / "again")
        (mine / "shared").unlink()
        assert alice.fails(os.stat, mine / "shared") == errno.ENOENT


def test_a_file_that_lost_its_name_is_used_to_its_end(guarded: GuardedMount) -> None:
    with guarded.actor(ALICE, "alice rwd") as alice:
        directory = prepare(guarded.path / "alice")
        descriptor = alice.do(os.open, f"{directory}/file", os.O_RDWR)
        alice.do(os.unlink, f"{directory}/file")
        for name in ("other", "link"):
            alice.do(os.unlink, f"{directory}/{name}")
        alice.do(os.rmdir, f"{directory}/empty")
        alice.do(os.rmdir, directory)
        assert alice.do(os.pread, descriptor, 100, 0) == b"content"
        alice.do(os.ftruncate, descriptor, 3)
        assert alice.do(os.fstat, descriptor).st_size == 3


# Modes


def test_where_permissions_alone_decide_tokens_change_nothing(guarded: GuardedMount) -> None:
    """Last: it mounts the store anew, twice."""
    guarded.set_access("posix")
    guarded.store.remount()
    try:
        with guarded.actor(ALICE) as nobody, guarded.actor(ALICE, "alice r") as alice:
            for actor in (nobody, alice):
                assert set(outcomes(actor, guarded.path / "bob").values()) == {0}
    finally:
        guarded.set_access("tokens")
        guarded.store.remount()
    with guarded.actor(ALICE) as nobody:
        assert nobody.fails(os.stat, guarded.path) == errno.EACCES
