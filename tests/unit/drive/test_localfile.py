"""A local file on a device that misbehaves: short writes, short reads, failed syncs, missing abilities."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ciaosfs.drive import syscalls
from ciaosfs.drive.localfile import LocalFile

CONTENT = bytes(range(250)) * 80


@pytest.fixture
def file(tmp_path: Path) -> Iterator[LocalFile]:
    file = LocalFile(os.open(tmp_path / "volume", os.O_RDWR | os.O_CREAT, 0o600))
    yield file
    file.close()


@pytest.mark.parametrize("most", [1, 7, 333, 19_999])
def test_a_short_write_is_continued_where_it_stopped(
    file: LocalFile, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev

    def write_some(descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        return real(descriptor, [b"".join(buffers)[:most]], offset)

    monkeypatch.setattr(os, "pwritev", write_some)
    file.write(5, [CONTENT[:10], b"", CONTENT[10:11], memoryview(CONTENT)[11:15_000], CONTENT[15_000:]])
    assert file.read(5, len(CONTENT) + 1) == CONTENT


def test_a_device_that_is_full_half_way_raises(file: LocalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev

    def write_until_full(descriptor: int, buffers: Sequence[bytes], offset: int) -> int:
        if offset:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, [b"".join(buffers)[:4096]], offset)

    monkeypatch.setattr(os, "pwritev", write_until_full)
    with pytest.raises(OSError, match="No space left") as caught:
        file.write(0, [CONTENT])
    assert caught.value.errno == errno.ENOSPC


def test_a_device_that_takes_nothing_is_not_asked_for_ever(
    file: LocalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwritev", lambda *_: 0)
    with pytest.raises(OSError, match="takes no bytes"):
        file.write(0, [CONTENT])


@pytest.mark.parametrize("most", [1000, 19_999])
def test_a_short_read_is_continued_to_the_end(
    file: LocalFile, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write(0, [CONTENT])
    real = os.pread
    monkeypatch.setattr(
        os, "pread", lambda descriptor, length, offset: real(descriptor, min(length, most), offset)
    )
    assert file.read(0, len(CONTENT)) == CONTENT
    assert file.read(100, len(CONTENT)) == CONTENT[100:]


def test_after_a_failed_sync_no_later_one_claims_success(
    file: LocalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    file.sync()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            file.sync()
    for _ in range(2):
        with pytest.raises(OSError, match="an earlier sync failed") as caught:
            file.sync()
        assert caught.value.errno == errno.EIO


# Reading from memory only


def preadv_raising(code: int, calls: list[int]) -> Callable[..., int]:
    def preadv(*_: object) -> int:
        calls.append(code)
        raise OSError(code, os.strerror(code))

    return preadv


def test_what_is_not_in_memory_is_none_and_asked_for_again(
    file: LocalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write(0, [CONTENT])
    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", preadv_raising(errno.EAGAIN, calls))
        assert file.read_nowait(0, 10) is None
        assert file.read_nowait(0, 10) is None
    assert len(calls) == 2


def test_where_it_is_not_supported_it_is_asked_once(file: LocalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "preadv", preadv_raising(errno.EOPNOTSUPP, calls))
    assert file.read_nowait(0, 10) is None
    assert file.read_nowait(0, 10) is None
    assert len(calls) == 1


def test_a_failing_device_is_not_none(file: LocalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "preadv", preadv_raising(errno.EIO, []))
    with pytest.raises(OSError, match="Input/output error"):
        file.read_nowait(0, 10)


def test_a_range_half_of_which_is_in_memory_is_none(file: LocalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write(0, [CONTENT])
    real = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, buffers, offset, _: real(fd, [memoryview(buffers[0])[:4096]], offset)
    )
    assert file.read_nowait(0, 8192) is None
    whole, end = file.read_nowait(0, 4096), file.read_nowait(len(CONTENT) - 100, 4096)
    assert whole is not None and whole == CONTENT[:4096]
    assert end is not None and end == CONTENT[-100:]  # short because the file ends


# Holes and reserved room


@pytest.fixture
def fallocate(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Calls of fallocate(2): mode, offset, length."""
    calls: list[tuple[int, int, int]] = []

    def record(_: int, mode: int, offset: int, length: int) -> int:
        calls.append((mode, offset, length))
        return 0

    monkeypatch.setattr(syscalls, "_fallocate", record)
    return calls


@pytest.mark.parametrize(
    ("offset", "length", "pages"),
    [
        (0, 4096, (0, 4096)),
        (4096, 8192, (4096, 8192)),
        (1, 8191, (4096, 4096)),
        (4095, 8194, (4096, 8192)),
        (0, 4095, None),
        (1, 4096, None),
        (4096, 0, None),
        (2**40 + 1, 2**33, (2**40 + 4096, 2**33 - 4096)),
    ],
)
def test_holes_are_whole_pages_inside_the_range(
    file: LocalFile,
    fallocate: list[tuple[int, int, int]],
    offset: int,
    length: int,
    pages: tuple[int, int] | None,
) -> None:
    file.punch(offset, length)
    assert fallocate == ([] if pages is None else [(3, *pages)])


def test_room_is_reserved_from_the_start_without_growing(
    file: LocalFile, fallocate: list[tuple[int, int, int]]
) -> None:
    file.preallocate(2**33)
    assert fallocate == [(1, 0, 2**33)]


def fallocate_failing(*codes: int) -> Callable[..., int]:
    left = list(codes)

    def fail(*_: object) -> int:
        if not left:
            return 0
        ctypes.set_errno(left.pop(0))
        return -1

    return fail


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_that_cannot_is_no_error(
    file: LocalFile, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "_fallocate", fallocate_failing(code, code))
    file.punch(0, 4096)
    file.preallocate(4096)


def test_an_interrupted_call_is_made_again(file: LocalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_fallocate", fallocate_failing(errno.EINTR, errno.EINTR))
    file.punch(0, 4096)


def test_no_space_is_told_with_its_errno(file: LocalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_fallocate", fallocate_failing(errno.ENOSPC))
    with pytest.raises(OSError) as caught:
        file.preallocate(4096)
    assert caught.value.errno == errno.ENOSPC


def test_a_file_that_cannot_be_read_past_the_page_cache_says_so() -> None:
    with_pages = LocalFile(os.open("/proc/self/status", os.O_RDONLY))
    try:
        assert with_pages.read_into(0, memoryview(bytearray(4096))) is None
    finally:
        with_pages.close()


def test_a_closed_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    file = LocalFile(os.open(path, os.O_RDONLY))
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        file.read_into(0, memoryview(bytearray(4096)))
    assert caught.value.errno == errno.EBADF
