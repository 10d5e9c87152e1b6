"""What is tried again, how often, and until when."""

from __future__ import annotations

import errno

import pytest

from ciaosfs.base import limits
from ciaosfs.base.errors import (
    AccessError,
    CiaosError,
    DaemonError,
    FsError,
    LostAnswerError,
    NoSpaceError,
    NotNowError,
    StoreError,
    UnreachableError,
)
from ciaosfs.client.retry import Patience, may_try_again


@pytest.mark.parametrize(
    ("error", "when_harmless", "else_"),
    [
        (UnreachableError("x"), True, True),
        (FsError(errno.EAGAIN), True, True),
        (NotNowError("x"), True, True),
        (LostAnswerError("x"), True, False),
        (FsError(errno.EBADF), True, False),
        (DaemonError("x"), False, False),
        (FsError(errno.ENOENT), False, False),
        (FsError(errno.ENOSPC), False, False),
        (NoSpaceError("x"), False, False),
        (AccessError("x"), False, False),
        (StoreError("x"), False, False),
    ],
)
def test_what_is_tried_again(error: CiaosError, when_harmless: bool, else_: bool) -> None:
    assert may_try_again(error, is_harmless=True) is when_harmless
    assert may_try_again(error, is_harmless=False) is else_


class Time:
    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def test_pauses_double_up_to_a_bound_and_end_when_the_time_is_over() -> None:
    time = Time()
    patience = Patience(10.0, time.sleep, lambda: time.now)
    error = UnreachableError("gone")
    with pytest.raises(UnreachableError) as caught:
        for _ in range(1000):
            patience.pause(error)
    assert caught.value is error
    assert time.now == pytest.approx(110.0)
    assert 0 < time.pauses[0] <= limits.CLIENT_RETRY_PAUSE_S
    assert max(time.pauses) <= limits.CLIENT_RETRY_PAUSE_S_MAX
    assert 12 <= len(time.pauses) <= 30


def test_without_time_nothing_is_tried_again() -> None:
    time = Time()
    with pytest.raises(UnreachableError):
        Patience(0.0, time.sleep, lambda: time.now).pause(UnreachableError("gone"))
    assert time.pauses == []
