"""Buffers for reads past the page cache: where they lie, how many there are, and when they come back."""

from __future__ import annotations

import ctypes
import threading
from itertools import pairwise

from ciaosfs.drive.pagebuffers import PageBuffers

LENGTH = 1 << 20


def address(buffer: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def test_buffers_begin_on_pages_and_do_not_overlap() -> None:
    buffers = PageBuffers(5, LENGTH)
    taken = [buffers.take() for _ in range(5)]
    places = sorted(address(buffer) for buffer in taken if buffer is not None)
    assert len(places) == 5
    assert all(place % LENGTH == 0 for place in places)
    assert all(later - earlier >= LENGTH for earlier, later in pairwise(places))
    assert buffers.take() is None
    assert buffers.free_count == 0


def test_a_buffer_comes_back_when_the_last_slice_of_it_is_gone() -> None:
    buffers = PageBuffers(1, LENGTH)
    taken = buffers.take()
    assert taken is not None
    taken[:4] = b"data"
    part = taken[1:3]
    del taken
    assert buffers.take() is None
    assert bytes(part) == b"at"
    del part
    assert buffers.take() is not None


def test_a_buffer_may_come_back_in_another_thread() -> None:
    buffers = PageBuffers(2, LENGTH)
    handed = [buffers.take(), buffers.take()]
    thread = threading.Thread(target=handed.clear)
    thread.start()
    thread.join()
    assert buffers.free_count == 2


def test_memory_is_given_back_only_when_nobody_uses_it() -> None:
    buffers = PageBuffers(2, LENGTH)
    taken = buffers.take()
    assert taken is not None
    taken[:4] = b"data"
    buffers.give_back()
    assert bytes(taken[:4]) == b"data"
    assert buffers.free_count == 1
    before = address(taken)
    del taken
    buffers.give_back()
    assert buffers.free_count == 2
    again = buffers.take()
    assert again is not None and before
    assert bytes(again[:4]) == bytes(4), "new memory"
