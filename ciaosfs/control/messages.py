"""The protocol of the control socket, version 1, as PROTOCOL.md describes it. Pure.

A client sends requests, one line each, and gets one reply for each, in order:

    {"v": 1, "op": "sync"}
    {"v": 1, "ok": true, "result": {...}}
    {"v": 1, "ok": false, "errno": 28, "code": "NoSpaceError", "message": "The drives cannot take ..."}

An operation that takes long may send any number of *parts* before its reply, each `{"v": 1, "more": {...}}`.

A request or a result with `"body": N` is followed by N bytes after its newline.

`code` is the name of a class in `base/errors.py`; the client raises that class again. A field that is not
known is ignored, so both sides may grow.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ciaosfs.base import errors, limits
from ciaosfs.base.errors import CiaosError, DaemonError, FsError, UsageError

VERSION = 1


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks. `arguments` are the fields beside version, operation and body; they may be secret."""

    operation: str
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    body_bytes: int = 0
    """How many bytes follow the line."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of it."""

    result: dict[str, Any]
    body_bytes: int = 0


def encode_request(request: Request) -> bytes:
    """One line. Raises UsageError when it, or the body, would be too long."""
    fields = {"v": VERSION, "op": request.operation, **request.arguments}
    if request.body_bytes:
        fields["body"] = request.body_bytes
    line = _encode(fields)
    if len(line) > limits.CONTROL_MESSAGE_BYTES_MAX or request.body_bytes > limits.CONTROL_BODY_BYTES_MAX:
        raise UsageError(
            f"The request {request.operation} has {len(line)} + {request.body_bytes} bytes; it may have "
            f"{limits.CONTROL_MESSAGE_BYTES_MAX} + {limits.CONTROL_BODY_BYTES_MAX}."
        )
    return line


def decode_request(line: bytes) -> Request:
    """Raises UsageError when the line is no request of a version known here.

    Then nobody can tell where the next one begins, for bytes of a body may follow.
    """
    fields = _decode(line)
    version = fields.pop("v", None)
    if version != VERSION or isinstance(version, bool):
        raise UsageError(f"This daemon speaks version {VERSION} of the control protocol.")
    operation = fields.pop("op", None)
    if not isinstance(operation, str):
        raise UsageError("A request names its operation in the field 'op'.")
    return Request(operation, fields, _body_bytes(fields))


def _body_bytes(fields: dict[str, Any]) -> int:
    count = fields.pop("body", 0)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise UsageError("The field 'body' is the number of bytes that follow the line.")
    if count > limits.CONTROL_BODY_BYTES_MAX:
        raise UsageError(f"At most {limits.CONTROL_BODY_BYTES_MAX} bytes may follow one message.")
    return count


def encode_result(result: Mapping[str, Any], body_bytes: int = 0) -> bytes:
    """The reply to a request that was carried out. Raises UsageError when it would be too long for one line."""
    fields: dict[str, Any] = {"v": VERSION, "ok": True, "result": result}
    if body_bytes:
        fields["body"] = body_bytes
    line = _encode(fields)
    if len(line) > limits.CONTROL_REPLY_BYTES_MAX:
        raise UsageError(f"The answer has {len(line)} bytes, more than one message may have.")
    return line


def encode_part(part: Mapping[str, Any]) -> bytes:
    """Something to be told before the reply. Raises UsageError when it would be too long for one line."""
    line = _encode({"v": VERSION, "more": part})
    if len(line) > limits.CONTROL_REPLY_BYTES_MAX:
        raise UsageError(f"A part of the answer has {len(line)} bytes, more than one message may have.")
    return line


def decode_part(line: bytes) -> dict[str, Any] | None:
    """The part in a line, or None when the line is the reply (for `decode_reply`)."""
    try:
        part = _decode(line).get("more")
    except UsageError:
        return None
    return part if isinstance(part, dict) else None


def encode_failure(error: Exception) -> bytes:
    """The reply to a request that failed with `error`; what is not a CiaosError is not explained to clients."""
    if isinstance(error, CiaosError):
        code, number, message = type(error).__name__, error.errno, error.message
    else:
        code, number = DaemonError.__name__, errno.EIO
        message = "The daemon could not carry out the request; its log says why."
    return _encode({"v": VERSION, "ok": False, "errno": number, "code": code, "message": message})


def decode_reply(line: bytes) -> Reply:
    """The reply, or raise the error that it tells of. DaemonError when it is no reply."""
    try:
        fields = _decode(line)
        body_bytes = _body_bytes(fields)
    except UsageError as error:
        raise DaemonError(f"The daemon sent no valid reply: {error.message}") from error
    if fields.get("ok") is True and isinstance(fields.get("result"), dict):
        return Reply(fields["result"], body_bytes)
    message, number = fields.get("message"), fields.get("errno")
    if fields.get("ok") is not False or not isinstance(message, str) or not isinstance(number, int):
        raise DaemonError("The daemon's reply is neither a result nor an error.")
    raise _error_of(str(fields.get("code")), number, message)


def _error_of(code: str, number: int, message: str) -> CiaosError:
    kind = getattr(errors, code, None)
    if kind is FsError:
        return FsError(number, message)
    if isinstance(kind, type) and issubclass(kind, CiaosError):
        return kind(message)
    return DaemonError(message)


def _encode(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _decode(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError("A message must be one JSON object on one line.") from None
    if not isinstance(fields, dict):
        raise UsageError("A message must be a JSON object.")
    return fields
