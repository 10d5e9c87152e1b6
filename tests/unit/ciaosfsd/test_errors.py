"""Every error of every floor becomes one errno, and nothing but FUSEError leaves a handler."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
import trio
from ciaosfsd.fuse import errors
from ciaosfsd.fuse.errors import failure, guarded

from ciaosfs.base.errors import DriveGoneError, FsError, NoSpaceError, StripeLostError
from ciaosfs.base.log import RateLimit

CONTEXT: Any = SimpleNamespace(pid=1)


class Refusing:
    """Handlers that raise what they are told to; one plain, one async."""

    supports_dot_lookup = False
    enable_acl = True

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def getattr(self, ino: int, ctx: object) -> None:
        raise self._error

    async def unlink(self, parent: int, name: bytes, ctx: object) -> None:
        await trio.lowlevel.checkpoint()
        raise self._error

    def forget(self, counts: object) -> None:
        raise self._error


def call(operations: pyfuse3.Operations, name: str, *arguments: Any) -> Any:
    async def main() -> Any:
        return await getattr(operations, name)(*arguments)

    return trio.run(main)


@pytest.fixture(autouse=True)
def fresh_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_limit", RateLimit(burst=2, interval_s=60.0))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FsError(errno.ENOTEMPTY), errno.ENOTEMPTY),
        (NoSpaceError("full"), errno.ENOSPC),
        (StripeLostError("lost"), errno.EIO),
        (DriveGoneError("gone"), errno.EIO),
        (OSError(errno.EROFS, "read-only"), errno.EROFS),
        (OSError("without a number"), errno.EIO),
        (MemoryError(), errno.ENOMEM),
        (ZeroDivisionError("a bug"), errno.EIO),
        (AssertionError(), errno.EIO),
        (failure(errno.ENOSYS), errno.ENOSYS),
    ],
)
@pytest.mark.parametrize("name", ["getattr", "unlink"])
def test_what_is_raised_becomes_an_errno(error: Exception, code: int, name: str) -> None:
    operations = guarded(Refusing(error))
    arguments = (1, CONTEXT) if name == "getattr" else (1, b"name", CONTEXT)
    with pytest.raises(pyfuse3.FUSEError) as caught:
        call(operations, name, *arguments)
    assert caught.value.errno == code


def test_a_bug_leaves_a_traceback_in_the_log_but_not_without_end(caplog: pytest.LogCaptureFixture) -> None:
    operations = guarded(Refusing(ZeroDivisionError("a bug")))
    for _ in range(10):
        with pytest.raises(pyfuse3.FUSEError):
            call(operations, "getattr", 1, CONTEXT)
    assert caplog.text.count("ZeroDivisionError: a bug") == 2


def test_the_callers_own_mistakes_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(pyfuse3.FUSEError):
        call(guarded(Refusing(FsError(errno.ENOENT))), "getattr", 1, CONTEXT)
    assert not caplog.records


def test_forget_raises_nothing() -> None:
    assert call(guarded(Refusing(ZeroDivisionError())), "forget", []) is None


def test_cancellation_passes() -> None:
    class Waiting:
        async def unlink(self, parent: int, name: bytes, ctx: object) -> None:
            await trio.sleep_forever()

    async def main() -> bool:
        with trio.move_on_after(0) as scope:
            await guarded(Waiting()).unlink(1, b"name", CONTEXT)
        return scope.cancelled_caught

    assert trio.run(main)


def test_settings_are_handed_over_and_absent_handlers_are_enosys() -> None:
    operations = guarded(Refusing(AssertionError()))
    assert operations.supports_dot_lookup is False
    assert operations.enable_acl is True
    with pytest.raises(pyfuse3.FUSEError) as caught:
        call(operations, "access", 1, 0, None)
    assert caught.value.errno == errno.ENOSYS


def test_a_name_that_pyfuse3_does_not_call_is_refused() -> None:
    class Misspelt:
        def getatr(self, ino: int, ctx: object) -> None: ...

    with pytest.raises(AssertionError, match="getatr"):
        guarded(Misspelt())
