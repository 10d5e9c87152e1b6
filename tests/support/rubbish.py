"""What a client may send that is not what it should be, and what the protocol promises to answer.

`STREAMS` are requests for the operations of `conversing.OPERATIONS`, some with a wrong count of bytes, among rubbish of many
kinds, cut off somewhere. `expected` is a second, simple reading of the protocol.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from ciaosfs.base import limits
from ciaosfs.base.errors import UsageError
from ciaosfs.control.messages import Request, decode_request, encode_request
from tests.support.conversing import OPERATIONS, digest

ROWS = {row.name: row for row in OPERATIONS}
BODIES = st.binary(max_size=300) | st.sampled_from([b"\n" * 50, b'{"v":1,"op":"keep"}\n' * 20, bytes(90_000)])
NAMES = st.sampled_from([*ROWS, "dance"]) | st.text(max_size=5)
REQUESTS = st.builds(
    lambda name, body, wrong: encode_request(Request(name, {"a": name}, max(0, len(body) + wrong))) + body,
    NAMES,
    BODIES,
    st.sampled_from([0] * 10 + [-1, 1, 7, 300]),
)
RUBBISH = (
    st.binary(max_size=60).map(lambda data: data + b"\n")
    | st.sampled_from(
        [
            b"\n",
            b"{}\n",
            b'{"v":1,"op":"take","body":1e3}\n',
            b'{"v":1,"op":"take","body":99999999999999}\n',
            b'{"v":1,"op":"take","op":"own"}\n',
            b'{"v":1,"op":"take","x":' + b"[" * 5000 + b"}\n",
            b'{"v":1,"op":"take","x":' + b"9" * 5000 + b"}\n",
            b'{"v":1,"op":"take","x":"\\udcff\\ud800"}\n',
            b'{"v":1,"op":"take","x":NaN}\n',
            b"x" * limits.CONTROL_MESSAGE_BYTES_MAX,
            b" " * (limits.CONTROL_MESSAGE_BYTES_MAX - 20) + b'{"v":1,"op":"keep"}\n',
        ]
    )
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    ).map(lambda value: json.dumps({"v": 1, "op": "take", "body": value}).encode() + b"\n")
)


def expected(sent: bytes) -> list[tuple[bool, str]]:
    """What the protocol promises for a client without rights: (whether it is good, code or digest of the body)."""
    replies: list[tuple[bool, str]] = []
    while True:
        line, end, rest = sent.partition(b"\n")
        if len(line) >= limits.CONTROL_MESSAGE_BYTES_MAX:
            return [*replies, (False, "UsageError")]
        if not end:
            return replies
        try:
            request = decode_request(line)
        except UsageError:
            return [*replies, (False, "UsageError")]
        body, sent = rest[: request.body_bytes], rest[request.body_bytes :]
        if len(body) < request.body_bytes:
            return replies
        replies.append(_outcome(request, body))


def _outcome(request: Request, body: bytes) -> tuple[bool, str]:
    codes = {"refuse": "FsError", "break": "DaemonError", "administer": "AccessError", "own": "AccessError"}
    row = ROWS.get(request.operation)
    if row is not None and request.operation in ("administer", "own"):
        return False, "AccessError"
    if row is None or (body and not row.takes_body):
        return False, "UsageError"
    if request.operation in ("use", "close"):
        return False, "FsError"
    if request.operation in codes:
        return False, codes[request.operation]
    return True, digest(body) if row.takes_body or row.gives_body else ""


def shown(replies: list[tuple[bool, Any, bytes]]) -> list[tuple[bool, str]]:
    """Replies, as `Client.all_replies` gives them, in the way of `expected`."""
    return [(ok, result.get("body", "") if ok else result) for ok, result, _ in replies]


def _cut(sent: bytes, share: float) -> bytes:
    return sent if share > 0.5 else sent[: int(2 * share * len(sent))]


STREAMS = st.builds(_cut, st.lists(REQUESTS | RUBBISH, max_size=6).map(b"".join), st.floats(0, 1))
