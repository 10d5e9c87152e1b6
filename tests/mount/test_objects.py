"""Objects beside plain file I/O on one mount: what one does the other sees, and the kernel's rules hold for both."""

from __future__ import annotations

import os
import stat
import threading
from functools import partial
from typing import Any, Final

import pytest
import trio

from ciaosfs.base.errors import AccessError, FsError, NoSpaceError, UsageError
from ciaosfs.objects import visits
from ciaosfs.objects.appending import Appended
from ciaosfs.objects.credentials import Actor
from ciaosfs.objects.keys import Names, parse_key
from ciaosfs.objects.store import Place
from ciaosfs.objects.visits import Wish
from tests.support.object_mount import ObjectMount, parse, refusal_of

MIB: Final = 1 << 20


# What one does the other sees


def test_a_put_is_seen_at_once_whatever_the_kernel_believed(mount: ObjectMount, place: Place) -> None:
    path = mount.path_of(place, "key")
    assert not path.exists()  # and the kernel knows that now
    mount.put(place, "key", b"one")
    assert path.read_bytes() == b"one"
    with path.open("rb") as held:
        assert os.listdir(path.parent) == ["key"]
        for content in (b"second", b"third and longer"):
            mount.put(place, "key", content, Wish.REPLACE)
            assert path.read_bytes() == content
            assert path.stat().st_size == len(content)
            assert mount.get(place, "key") == content
        assert held.read() == b"one"
        assert os.fstat(held.fileno()).st_nlink == 0
    path.unlink()
    assert refusal_of(lambda: mount.get(place, "key")) == "ENOENT"


def test_what_is_written_on_the_mount_is_got_at_once(mount: ObjectMount, place: Place) -> None:
    path = mount.path_of(place, "a/b/c")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"plain")  # perhaps in the kernel's cache alone
    assert mount.get(place, "a/b/c") == b"plain"
    with path.open("ab") as file:
        file.write(b" and more")
    assert mount.get(place, "a/b/c") == b"plain and more"
    assert mount.keys(place) == ["a/b/c"]
    path.rename(path.with_name("d"))
    assert mount.keys(place) == ["a/b/d"]


def test_replaced_files_that_nobody_knew_leave_no_inode(mount: ObjectMount, place: Place) -> None:
    before = newest_inode(mount)
    for number in range(20):
        mount.put(place, "key", b"%d" % number)
    assert inodes_since(mount, before) == 1
    mount.path_of(place, "key").read_bytes()
    for number in range(20):
        mount.put(place, "key", b"%d" % number)
    assert inodes_since(mount, before) <= 2  # of the one that was looked at a FORGET may be on its way


def newest_inode(mount: ObjectMount) -> int:
    return _ask_metadata(mount, "SELECT max(ino) FROM inodes WHERE ino > ?", 0)


def inodes_since(mount: ObjectMount, newest: int) -> int:
    """How many there are of those made after `newest`: those of other tests go when the kernel forgets them."""
    return _ask_metadata(mount, "SELECT count(*) FROM inodes WHERE ino > ?", newest)


def _ask_metadata(mount: ObjectMount, question: str, ino: int) -> int:
    async def ask() -> int:
        answer: int = mount.objects._fs._meta.inodes._read(question, (ino,)).get
        return answer

    return mount.ask(ask)


def test_a_reader_in_a_loop_sees_one_or_the_other_whole(mount: ObjectMount, place: Place) -> None:
    contents = {bytes([number]) * (number * 50_000 + 1) for number in range(1, 6)}
    path = mount.path_of(place, "key")
    mount.put(place, "key", min(contents))
    seen: set[bytes] = set()
    stopping = threading.Event()
    torn: list[int] = []

    def read() -> None:
        while not stopping.is_set():
            found = path.read_bytes()
            seen.add(found)
            if found not in contents:
                torn.append(len(found))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(30):
        for content in sorted(contents):
            mount.put(place, "key", content, Wish.REPLACE)
    stopping.set()
    for reader in readers:
        reader.join()
    assert not torn
    assert len(seen) > 1


def test_an_object_that_is_replaced_right_after_it_was_read_is_one_or_the_other(
    mount: ObjectMount, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is closed by then, and its inode with the sizes of its parts may be gone."""
    mount.put(place, "key", b"former")
    mount.append(place, "key", b"parts")
    agent = mount.objects._agent
    visit = agent.visit

    async def overtaken(actor: Actor, reach: Names, function: Any, *args: Any, **kwargs: Any) -> Any:
        result = await visit(actor, reach, function, *args, **kwargs)
        if function is visits.read_beginning:
            await mount.objects.put(place, (b"key",), Wish.REPLACE, None, b"new", [1, 2], {}, sync=False)
            while mount.objects._fs.has_inode(result.opened.ino):  # noqa: ASYNC110 - nobody tells us
                await trio.sleep(0.01)
        return result

    async def get() -> tuple[bytes, list[int]]:
        found, description, content = await mount.objects.get(place, (b"key",), 100)
        if found is not None:
            await found.close()
        return content, description.parts

    monkeypatch.setattr(agent, "visit", overtaken)
    assert mount.ask(get) == (b"new", [1, 2])
    monkeypatch.undo()
    assert mount.ask(get) == (b"new", [1, 2])


def test_names_that_are_moved_and_removed_while_they_are_replaced(mount: ObjectMount, place: Place) -> None:
    """The kernel never keeps a name of what is not there any more."""
    folder = mount.path_of(place)
    stopping = threading.Event()

    def move() -> None:
        names = [folder / name for name in ("key", "other", "third")]
        number = 0
        while not stopping.is_set():
            number += 1
            one, other = names[number % 3], names[(number // 3) % 3]
            refusal_of(partial(one.rename, other))
            if number % 7 == 0:
                refusal_of(other.unlink)
            for name in names:
                refusal_of(name.read_bytes)

    mover = threading.Thread(target=move)
    mover.start()
    for number in range(200):
        mount.put(place, "key", b"%d" % number)
    stopping.set()
    mover.join()
    for name in os.listdir(folder):
        assert (folder / name).read_bytes() == mount.get(place, name)
        assert (folder / name).stat().st_nlink == 1
    assert sorted(os.listdir(folder)) == mount.keys(place)


def test_appends_of_both_kinds_lose_nothing(mount: ObjectMount, place: Place) -> None:
    path = mount.path_of(place, "log")
    mount.append(place, "log", b"begin|", create=True)
    count = 150

    def plain(who: str) -> None:
        with path.open("ab", buffering=0) as file:
            for number in range(count):
                file.write(f"{who}{number}|".encode())

    def socket(who: str) -> None:
        for number in range(count):
            mount.append(place, "log", f"{who}{number}|".encode())

    writers = [threading.Thread(target=plain, args=(who,)) for who in "ab"]
    writers += [threading.Thread(target=socket, args=(who,)) for who in "cd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    content = mount.get(place, "log")
    assert content == path.read_bytes()
    pieces = content.decode().split("|")[:-1]
    assert sorted(pieces) == sorted(["begin"] + [f"{who}{n}" for who in "abcd" for n in range(count)])
    sizes = mount.parts(place, "log")
    assert sum(sizes) == len(content)
    at, starts = 0, set()
    for size in sizes:
        starts.add(at)
        at += size
    for who in "cd":  # each append over the socket is a part, whatever came between
        for number in range(count):
            piece = f"{who}{number}|".encode()
            at = content.index(b"|" + piece) + 1
            assert at in starts and (at + len(piece) in starts or at + len(piece) == len(content))


def test_parts_through_puts_appends_and_plain_writes(mount: ObjectMount, place: Place) -> None:
    async def put() -> None:
        await mount.objects.put(
            place, (b"key",), Wish.CREATE, None, b"aabbbc", [2, 3, 1], {b"user.note": b"n"}, sync=True
        )

    mount.ask(put)
    path = mount.path_of(place, "key")
    assert mount.parts(place, "key") == [2, 3, 1]
    assert mount.append(place, "key", b"dd") == Appended(6, 8)
    with path.open("ab") as file:
        file.write(b"plain")
    assert mount.parts(place, "key") == [2, 3, 1, 2, 5]
    mount.append(place, "key", b"e", goes_on=True)
    assert mount.parts(place, "key") == [2, 3, 1, 2, 6]
    mount.append(place, "key", b"", sync=True)
    assert mount.parts(place, "key") == [2, 3, 1, 2, 6, 0]
    assert os.getxattr(path, "user.note") == b"n"
    os.truncate(path, 5)
    assert mount.parts(place, "key") == [5]
    with pytest.raises(FsError, match="There is no object"):
        mount.append(place, "none", b"x")


# Nothing leaves its folder


def test_no_key_leads_out(mount: ObjectMount, place: Place) -> None:
    base = mount.path_of(place)
    (base / "secret").write_bytes(b"secret")
    inside = base / "user" / "data"
    inside.mkdir(parents=True)
    (inside / "file").write_bytes(b"inside")
    (inside / "up").symlink_to("../../secret")
    (inside / "root").symlink_to(base / "secret")
    (inside / "self").symlink_to("/proc/self/root/etc/passwd")
    (inside / "folder").symlink_to("..")
    (inside / "absolute").symlink_to("/etc")
    (inside / "good").symlink_to("file")
    (inside / "round").symlink_to("../data/file")
    user = (*place.folder, b"user")
    narrow = Place(place.actor, user, (*user, b"data"))
    assert mount.get(narrow, "data/good") == b"inside"
    assert refusal_of(lambda: mount.get(narrow, "data/round")) == "EACCES"
    for key in ("data/up", "data/root", "data/self", "data/folder/x", "data/absolute/passwd"):
        with pytest.raises(AccessError, match="leads out of where keys may go"):
            mount.get(narrow, key)
        with pytest.raises(AccessError):
            mount.append(narrow, key, b"x")
    for key in ("data/folder/new", "data/absolute/new", "data/folder/a/b"):
        with pytest.raises(AccessError):
            mount.put(narrow, key, b"x")
        with pytest.raises((AccessError, FsError)):
            mount.ask(mount.objects.delete, narrow, parse(key))
    for key in ("data", "other", "secret", "datax/y"):
        with pytest.raises(AccessError, match="The token is"):
            mount.get(narrow, key)
    for text in (
        "",
        "/",
        "a//b",
        "../x",
        "a/../b",
        "a/.",
        "a\0b",
        "x" * 256,
        "a/" * 3000 + "a",
        "\ud800",
        5,
        None,
    ):
        with pytest.raises(UsageError):
            parse_key(text)
    assert mount.keys(narrow) == ["data/absolute", "data/file", "data/folder", "data/good", "data/root",
                                  "data/round", "data/self", "data/up"]  # fmt: skip
    with pytest.raises(FsError, match="symbolic link"):
        mount.put(narrow, "data/good", b"x", Wish.REPLACE)
    assert sorted(os.listdir(base)) == ["secret", "user"]


def test_a_link_that_is_swapped_all_the_time_leads_nowhere(mount: ObjectMount, place: Place) -> None:
    base = mount.path_of(place)
    inside, outside = base / "inside", base / "outside"
    for folder in (inside / "real", outside):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(folder.name.encode())
    stopping = threading.Event()

    def point(target: str) -> None:
        (inside / "spare").symlink_to(target)
        os.rename(inside / "spare", inside / "link")

    def swap() -> None:
        while not stopping.is_set():
            point("../outside")
            point("real")

    point("real")
    swapper = threading.Thread(target=swap)
    swapper.start()
    narrow = Place(place.actor, place.folder, (*place.folder, b"inside"))
    outcomes = set()
    try:
        for number in range(80):
            outcomes.add(refusal_of(partial(mount.put, narrow, "inside/link/file", b"real")))
            outcomes.add(refusal_of(partial(mount.put, narrow, f"inside/link/{number}", b"real")))
    finally:
        stopping.set()
        swapper.join()
    assert outcomes <= {"", "EACCES", "ENOENT", "EEXIST"} and "" in outcomes
    assert os.listdir(outside) == ["file"]
    assert (outside / "file").read_bytes() == b"outside"


def test_a_folder_that_is_moved_away_takes_its_key_along(mount: ObjectMount, place: Place) -> None:
    base = mount.path_of(place)
    (base / "inside").mkdir()
    narrow = Place(place.actor, place.folder, (*place.folder, b"inside"))
    mount.put(narrow, "inside/a/key", b"x")
    os.link(base / "inside/a/key", base / "linked")  # the same file: who made the link could read it
    (base / "inside/a").rename(base / "moved")
    assert refusal_of(lambda: mount.get(narrow, "inside/a/key")) == "ENOENT"
    (base / "inside").rename(base / "gone")
    assert refusal_of(lambda: mount.put(narrow, "inside/new", b"x")) == "ENOENT"
    mount.put(place, "linked", b"y", Wish.REPLACE)
    assert (base / "moved/key").read_bytes() == b"x"


@pytest.mark.root
def test_fifos_and_devices_are_not_waited_for(mount: ObjectMount, place: Place) -> None:
    base = mount.path_of(place)
    os.mkfifo(base / "fifo")
    os.mknod(base / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (base / "folder").mkdir()
    for key in ("fifo", "null"):
        assert refusal_of(partial(mount.get, place, key)) == "EINVAL"
        assert refusal_of(partial(mount.append, place, key, b"x")) == "EINVAL"
        assert refusal_of(partial(mount.put, place, key, b"x", Wish.REPLACE)) == "EINVAL"
        assert refusal_of(partial(mount.put, place, key, b"x", Wish.CREATE)) == "EEXIST"
    assert refusal_of(lambda: mount.put(place, "folder", b"x")) == "EISDIR"
    assert refusal_of(lambda: mount.put(place, "null/x", b"x")) == "ENOTDIR"


def test_a_full_store_takes_nothing_of_a_put(
    mount: ObjectMount, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = newest_inode(mount)

    async def fill() -> None:
        room = mount.objects._fs._room
        monkeypatch.setattr(type(room), "available", property(lambda self: 2 * MIB))
        monkeypatch.setattr(type(room), "_is_promising", lambda self: False)
        draft = await mount.objects.begin(place, (b"key",), Wish.CREATE, None)
        try:
            with pytest.raises((FsError, NoSpaceError), match="full"):
                for _ in range(4):
                    await draft.write(os.urandom(MIB))
        finally:
            await draft.close()
        with pytest.raises((FsError, NoSpaceError), match="full"):
            await mount.objects.put(
                place, (b"a", b"b"), Wish.PUT, None, b"x" * 3 * MIB, [3 * MIB], {}, sync=False
            )

    mount.ask(fill)
    monkeypatch.undo()
    assert os.listdir(mount.path_of(place)) == []
    assert inodes_since(mount, before) == 0
    mount.put(place, "key", b"fits again")
