"""Who has the store, and how the last owner ended."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ciaosfs.base.errors import StoreBusyError
from ciaosfs.client import mounts, storelock
from ciaosfs.client.mounts import Mount
from ciaosfs.client.storelock import Ending, Holder, hold, read_lock, wait_released


def test_a_store_never_used_has_neither_holder_nor_ending(tmp_path: Path) -> None:
    assert read_lock(tmp_path) == (None, None)
    assert wait_released(tmp_path, 0)


def test_the_holder_is_seen_and_then_how_it_ended(tmp_path: Path) -> None:
    with hold(tmp_path) as lock:
        assert read_lock(tmp_path) == (Holder(os.getpid()), None)
        holder = Holder(os.getpid(), "/mnt/x", "/run/y.sock")
        lock.announce(holder)
        assert read_lock(tmp_path) == (holder, None)
        assert not wait_released(tmp_path, 0)
        lock.end(Ending(3, "A sentence."))
    assert read_lock(tmp_path) == (None, Ending(3, "A sentence."))


def test_a_holder_that_dies_leaves_neither(tmp_path: Path) -> None:
    with hold(tmp_path) as lock:
        lock.announce(Holder(1, "/mnt/x", "/run/y.sock"))
    assert read_lock(tmp_path) == (None, None)


@pytest.mark.parametrize("before", [None, Ending(0), Ending(3, "A sentence."), Holder(1, "/mnt/x", "/s")])
def test_who_has_it_for_a_while_leaves_what_was_there(tmp_path: Path, before: Holder | Ending | None) -> None:
    if before is not None:
        with hold(tmp_path) as lock:
            lock.announce(before) if isinstance(before, Holder) else lock.end(before)
    ending = before if isinstance(before, Ending) else None
    path = tmp_path / storelock.LOCK_NAME
    content = path.read_bytes() if before is not None else b""
    with hold(tmp_path):
        assert read_lock(tmp_path) == (Holder(os.getpid()), None)
        killed = path.read_bytes()
    assert path.read_bytes() == content
    path.write_bytes(killed)  # it was killed, and the next one after it, too
    for _ in range(2):
        assert read_lock(tmp_path) == (None, ending)
        assert storelock.was_owned(tmp_path) == (before is not None)
        with hold(tmp_path):
            path.write_bytes(path.read_bytes() + b"the rest of a longer line")
            killed = path.read_bytes()
        path.write_bytes(killed)
    with hold(tmp_path):
        pass
    assert path.read_bytes() == content


def test_a_second_owner_is_refused_at_once_while_the_mount_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = Mount(Path("/mnt/there"), "0:9", mounts.FSTYPE, str(tmp_path))
    monkeypatch.setattr(mounts, "mount_of_store", lambda store: mount)
    with hold(tmp_path) as lock:
        lock.announce(Holder(os.getpid(), "/mnt/there"))
        with pytest.raises(StoreBusyError, match="already mounted at /mnt/there") as caught:
            hold(tmp_path, wait_s=60).__enter__()
    assert f"process {os.getpid()}" in caught.value.message


def test_a_second_owner_waits_for_one_on_its_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "mount_of_store", lambda store: None)
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with hold(tmp_path):
            entered.set()
            leave.wait(5)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(5)
    with pytest.raises(StoreBusyError, match="has not let go"):
        hold(tmp_path, wait_s=0).__enter__()
    leave.set()
    with hold(tmp_path, wait_s=5):
        assert read_lock(tmp_path)[0] is not None
    thread.join()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"holder": {}}', b'{"ending": 1}', b"\xff"])
def test_nonsense_in_the_file_is_no_holder(tmp_path: Path, content: bytes) -> None:
    (tmp_path / storelock.LOCK_NAME).write_bytes(content)
    assert read_lock(tmp_path) == (None, None)
    with hold(tmp_path):
        assert read_lock(tmp_path)[0] == Holder(os.getpid())
