"""`ciaosfs top` and `ciaosfs metrics` against a running daemon, on a terminal and without one."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Ciaosfs
from tests.support.mount import environment


@pytest.fixture
def mount(ciaosfs: Ciaosfs, tmp_path: Path) -> Path:
    path = tmp_path / "mount"
    path.mkdir()
    assert ciaosfs("mkfs", tmp_path / "store", "--data", "1", "--parity", "0").status == 0
    assert ciaosfs("mount", tmp_path / "store", path).status == 0
    return path


def test_plain_lines_json_lines_and_metrics(ciaosfs: Ciaosfs, mount: Path) -> None:
    assert ciaosfs("top", mount, "-n", "1", "--interval", "0.1").status == 0  # now every request is timed
    (mount / "file").write_bytes(b"x" * 5000)
    os.statvfs(mount)
    once = ciaosfs("top", mount, "--once", "--interval", "0.1")
    assert once.status == 0, once.err
    assert f"ciaosfs {mount}: up " in once.out and "REQUEST" in once.out and "\x1b" not in once.out
    lines = ciaosfs("top", mount, "--json", "-n", "2", "--interval", "0.1")
    found = [json.loads(line) for line in lines.out.splitlines()]
    assert [line["type"] for line in found] == ["top", "top"]
    now = found[-1]["now"]
    assert now["bytes"]["written"] == 5000
    assert now["requests"]["create"]["count"] == 1
    assert [entry for entry in now["processes"] if entry["pid"] == os.getpid()]
    metrics = ciaosfs("metrics", mount)
    assert 'ciaosfs_fuse_requests_total{operation="create"} 1.0\n' in metrics.out
    assert "ciaosfs_fuse_written_bytes_total 5000.0\n" in metrics.out


def test_a_port_for_metrics_is_opened_and_a_taken_one_is_refused(
    ciaosfs: Ciaosfs, tmp_path: Path, mount: Path
) -> None:
    ciaosfs("umount", mount)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = ciaosfs("mount", tmp_path / "store", mount, "--metrics-port", str(port))
        assert refused.status == 5
        assert f"Port {port} of 127.0.0.1, for metrics, is taken: give another" in refused.err
        assert not mount.is_mount()
    assert ciaosfs("mount", tmp_path / "store", mount, "--metrics-port", str(port)).status == 0
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: me\r\n\r\n")
        with client.makefile("rb") as answer:
            assert b"ciaosfs_uptime_seconds" in answer.read()


SHOWN_WITHIN_S = 60.0


@contextmanager
def on_a_terminal(*arguments: str, rows: int = 30) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`ciaosfs` on a terminal of its own, and the other end of that."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "ciaosfs", *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**environment(), "TERM": "xterm"},
        start_new_session=True,
        preexec_fn=_heed_interrupts,
    )
    os.close(terminal)
    try:
        yield process, controller
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(controller)


def _heed_interrupts() -> None:
    """As a shell does for what it starts on a terminal: tests may run in the background, where SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def read_until(controller: int, wanted: bytes) -> bytes:
    """Everything up to and with `wanted`; AssertionError when the terminal is let go before, or it does not come."""
    shown = b""
    deadline = time.monotonic() + SHOWN_WITHIN_S
    while wanted not in shown:
        ready, _, _ = select.select([controller], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{wanted!r} does not come: {shown[-500:]!r}"
        try:
            part = os.read(controller, 65536)
        except OSError:
            part = b""
        assert part, f"it ended before {wanted!r}: {shown[-500:]!r}"
        shown += part
    return shown


@pytest.mark.parametrize("ending", ["q", "interrupt", "count"])
def test_on_a_terminal_it_stays_in_place_and_leaves_it_as_it_was(mount: Path, ending: str) -> None:
    options = ["-n", "1"] if ending == "count" else []
    with on_a_terminal("top", str(mount), "--interval", "0.2", *options) as (process, controller):
        before = termios.tcgetattr(controller)
        shown = read_until(controller, b"REQUEST")
        assert shown.count(b"\x1b[?1049h") == 1 and b"\x1b[H" in shown
        if ending != "count":
            fcntl.ioctl(controller, termios.TIOCSWINSZ, struct.pack("4H", 12, 60, 0, 0))
            process.send_signal(signal.SIGWINCH)
            read_until(controller, b"\x1b[H")
            if ending == "q":
                os.write(controller, b"q")
            else:
                process.send_signal(signal.SIGINT)
        read_until(controller, b"\x1b[?1049l")
        assert process.wait(10) == 0
        assert termios.tcgetattr(controller)[3] == before[3]
