"""A drive is open in one process at a time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ciaosfs.base.errors import StoreBusyError
from ciaosfs.drive import holding
from ciaosfs.drive.local import make_drive, open_drive
from tests.support.mount import environment

STORE = bytes(range(16))
ELSEWHERE = """
import sys
from ciaosfs.drive.local import open_drive
drive = open_drive(sys.argv[1], bytes(range(16)), 0)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> str:
    place = str(tmp_path / "drive")
    make_drive(place, store_id=STORE, number=0)
    return place


@pytest.fixture
def other(place: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the drive open."""
    command = [sys.executable, "-c", ELSEWHERE, place]
    with subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


def test_another_process_is_named_and_its_end_frees_the_drive(
    place: str, other: subprocess.Popen[str]
) -> None:
    with pytest.raises(
        StoreBusyError, match=rf"Drive 0 at {place} is in use by process {other.pid} for a copy"
    ):
        open_drive(place, STORE, 0)
    open_drive(place, STORE, 0, to_look=True).close()
    other.kill()
    other.wait()
    open_drive(place, STORE, 0).close()


def test_this_process_may_have_it_open_twice_and_lets_go_with_the_last(place: str) -> None:
    before = set(holding._holds)  # other tests leave drives open
    first, second = open_drive(place, STORE, 0), open_drive(place, STORE, 0)
    first.close()
    first.close()
    command = [sys.executable, "-c", ELSEWHERE, place]

    def elsewhere() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=environment(), input="", capture_output=True, text=True, check=False
        )

    assert "StoreBusyError" in elsewhere().stderr
    second.close()
    assert elsewhere().stdout == "open\n"
    assert set(holding._holds) == before
