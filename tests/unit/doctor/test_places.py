"""Sockets: who may write in their directory, and at which nobody listens any more."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ciaosfs.client import mounts
from ciaosfs.client.mounts import Mount
from ciaosfs.doctor import places
from ciaosfs.doctor.finding import Level, within


def test_a_directory_that_is_not_there_or_sound(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert [found.level for found in places.check_sockets(tmp_path / "none")] == [Level.OK]
    assert [found.level for found in places.check_sockets(tmp_path)] == [Level.OK]


def test_a_directory_that_others_may_write_in_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (found,) = places.check_sockets(tmp_path)
    assert found.level is Level.PROBLEM and "Others may write" in found.sentence
    assert f"chmod go-w {tmp_path}" in found.remedy
    tmp_path.chmod(0o700)


def test_what_is_no_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (found,) = places.check_sockets(tmp_path / "link")
    assert found.level is Level.PROBLEM and "no directory" in found.sentence


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_a_directory_of_another_user_is_told(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    (found,) = places.check_sockets(tmp_path)
    assert found.level is Level.PROBLEM and "user 12345" in found.sentence


def test_sockets_at_which_nobody_listens_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as dead:
        live.bind("live.sock")
        live.listen()
        dead.bind("dead.sock")
        Path("mount-0:9.sock").symlink_to("gone.sock")
        dead.close()
        (found,) = places.check_sockets(Path())
    assert found.level is Level.WARNING
    assert "at dead.sock, mount-0:9.sock in" in found.sentence


def test_a_mount_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def wait_for_nobody(path: Path) -> bool:
        return bool(fifo.read_bytes())  # for ever, as a call on such a mount

    monkeypatch.setattr(mounts, "is_dead", wait_for_nobody)
    monkeypatch.setattr(places, "ANSWER_S", 0.05)
    (found,) = places.check_mounts([Mount(Path("/mnt/x"), "0:1", "fuse.ciaosfs", "/store")])
    assert found.level is Level.PROBLEM and "does not answer" in found.sentence
    os.close(os.open(fifo, os.O_WRONLY))  # let the thread go


def test_within_hands_over_results_and_errors() -> None:
    assert within(5.0, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        within(5.0, divmod, 7, 0)
