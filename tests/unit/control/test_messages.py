"""Messages survive the trip, and whatever a peer sends is answered with a sentence."""

from __future__ import annotations

import errno
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciaosfs.base import limits
from ciaosfs.base.errors import DaemonError, DriveGoneError, FsError, NoSpaceError, UsageError
from ciaosfs.control.framing import FrameReader
from ciaosfs.control.messages import (
    Reply,
    Request,
    decode_reply,
    decode_request,
    encode_failure,
    encode_request,
    encode_result,
)


def test_a_request_arrives_as_it_was_sent() -> None:
    request = Request("sync", {"path": "/a\nb", "number": 3}, 17)
    line = encode_request(request)
    assert line.count(b"\n") == 1
    assert decode_request(line.rstrip(b"\n")) == request


def test_a_result_arrives_as_it_was_sent() -> None:
    assert decode_reply(encode_result({"commit": 7, "text": "ü\n"}, 9)) == Reply(
        {"commit": 7, "text": "ü\n"}, 9
    )


@pytest.mark.parametrize("error", [NoSpaceError("full"), DriveGoneError("gone"), UsageError("wrong")])
def test_an_error_arrives_as_its_own_class(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        decode_reply(encode_failure(error))


def test_an_errno_arrives_with_its_number() -> None:
    with pytest.raises(FsError) as caught:
        decode_reply(encode_failure(FsError(errno.EPERM, "not you")))
    assert (caught.value.errno, caught.value.message) == (errno.EPERM, "not you")


def test_a_bug_is_not_explained_to_clients() -> None:
    line = encode_failure(ZeroDivisionError("secret"))
    assert b"secret" not in line
    with pytest.raises(DaemonError, match="log says why"):
        decode_reply(line)


def test_a_result_that_is_too_long_is_refused() -> None:
    with pytest.raises(UsageError, match="more than one message"):
        encode_result({"text": "x" * limits.CONTROL_REPLY_BYTES_MAX})


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b"[1]",
        b'{"op": "sync"}',
        b'{"v": 2, "op": "sync"}',
        b'{"v": 1}',
        b'{"v": 1, "op": ["sync"]}',
        b'{"v": true, "op": "sync"}',
        b'{"v": 1, "op": "sync", "body": -1}',
        b'{"v": 1, "op": "sync", "body": 1.0}',
        b'{"v": 1, "op": "sync", "body": true}',
        b'{"v": 1, "op": "sync", "body": null}',
        b'{"v": 1, "op": "sync", "body": 1048577}',
        b"\xff",
        b"[" * 60000,
    ],
)
def test_what_is_no_request_is_refused(line: bytes) -> None:
    with pytest.raises(UsageError):
        decode_request(line)


@pytest.mark.parametrize(
    "reply",
    [
        b"nonsense",
        json.dumps({"ok": True}).encode(),
        json.dumps({"ok": True, "result": {}, "body": -1}).encode(),
        json.dumps({"ok": False}).encode(),
        json.dumps({"ok": False, "errno": "x", "message": "y"}).encode(),
        json.dumps({"ok": False, "errno": 5, "code": "os", "message": "unknown code"}).encode(),
    ],
)
def test_what_is_no_reply_is_a_daemon_error(reply: bytes) -> None:
    with pytest.raises(DaemonError):
        decode_reply(reply)


@given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\n", b""))), st.integers(1, 7))
def test_lines_come_out_however_they_are_cut(lines: list[bytes], step: int) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    reader = FrameReader(limits.CONTROL_MESSAGE_BYTES_MAX)
    found = []
    for at in range(0, len(stream), step):
        reader.feed(stream[at : at + step])
        while (line := reader.next_line()) is not None:
            found.append(line)
    assert found == lines


def test_a_line_without_an_end_is_bounded() -> None:
    reader = FrameReader(line_bytes_max=10)
    reader.feed(b"123456789")
    assert reader.next_line() is None
    reader.feed(b"0")
    with pytest.raises(UsageError, match="at most 10 bytes"):
        reader.next_line()


def test_a_long_line_is_refused_even_with_an_end() -> None:
    reader = FrameReader(line_bytes_max=10)
    reader.feed(b"1234567890\n")
    with pytest.raises(UsageError):
        reader.next_line()
