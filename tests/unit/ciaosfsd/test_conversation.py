"""What a control client may do to the daemon: send ahead, send rubbish, be slow, go in the middle."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping
from typing import Any

import pytest
import trio
from ciaosfsd.control.call import Call, Connection, Operation, Tally
from ciaosfsd.control.needs import ANYBODY
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, trio_test

from ciaosfs.base import limits
from ciaosfs.base.errors import AccessError, DaemonError, FsError, UsageError
from ciaosfs.control.messages import Request, encode_request
from tests.support.conversing import SECRET, Desk, Thing, digest
from tests.support.rubbish import STREAMS, expected, shown


class Nothing:
    """What costs nothing to keep."""

    async def close(self) -> None:
        return


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@trio_test
async def test_bodies_go_and_come_behind_their_lines(autojump_clock: MockClock) -> None:
    body = os.urandom(limits.CONTROL_BODY_BYTES_MAX)
    desk = Desk()
    async with desk.client() as client:
        for sent in (body, b"", b"\n{}"):
            answer = await client.ask("take", sent, key="k")
            assert answer == {"arguments": {"key": "k"}, "body": digest(sent)}
            await client.send("give", length=len(sent))
            reply, received = await client.reply()
            assert (reply.result, received) == ({"body": digest(received)}, bytes(len(sent)))
        assert desk.bodies.held == 0


@trio_test
async def test_requests_sent_ahead_are_answered_in_order_after_the_client_stopped_sending(
    autojump_clock: MockClock,
) -> None:
    async with Desk().client() as client:
        for number in range(100):
            await client.send("take", b"%d\n" % number, number=number)
        assert isinstance(client.stream, trio.StapledStream)
        await client.stream.send_eof()
        replies = await client.all_replies()
    assert [result["arguments"]["number"] for _, result, _ in replies] == list(range(100))
    assert [result["body"] for _, result, _ in replies] == [digest(b"%d\n" % number) for number in range(100)]


@pytest.mark.parametrize(
    ("operation", "complaint"),
    [
        ("dance", "no operation 'dance'"),
        ("x" * 1000, "no operation 'x{40}'"),
        ("use", "No bytes may follow"),
        ("administer", "needs a token with the scope admin"),
        ("own", "Only root and the user"),
        ("refuse", "no such thing"),
        ("break", "log says why"),
    ],
)
@trio_test
async def test_the_body_of_what_is_refused_is_not_taken_for_a_request(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, operation: str, complaint: str
) -> None:
    desk = Desk()
    async with desk.client() as client:
        await client.send(operation, encode_request(Request("keep")) * 9)
        with pytest.raises((UsageError, AccessError, FsError, DaemonError), match=complaint):
            await client.reply()
        assert await client.ask("take", b"x") == {"arguments": {}, "body": digest(b"x")}
        assert desk.bodies.held == 0
    caplog.clear()


@pytest.mark.parametrize(
    "line",
    [b"rubbish", b"[]", b'{"v":1,"op":"take","body":-1}', b'{"v":2,"op":"take"}', b"x" * 70_000, b"\xff\0"],
)
@trio_test
async def test_nothing_after_what_is_no_request_is_carried_out(
    autojump_clock: MockClock, line: bytes
) -> None:
    async with Desk().client() as client:
        await client.stream.send_all(line + b"\n" + encode_request(Request("keep")))
        assert [ok for ok, _, _ in await client.all_replies()] == [False]
    assert Thing.open == 0


@pytest.mark.parametrize(
    "start", [b'{"v":1,', b'{"v":1,"op":"take","body":9}\n', b'{"v":1,"op":"own","body":9}\n']
)
@trio_test
async def test_what_does_not_arrive_in_time_ends_the_connection(
    autojump_clock: MockClock, start: bytes
) -> None:
    desk = Desk()
    async with desk.client() as client:
        await client.stream.send_all(start)
        began_s = trio.current_time()
        with pytest.raises(FsError, match="did not arrive within 30 s") as caught:
            await client.reply()
        assert caught.value.errno == errno.ETIMEDOUT
        assert trio.current_time() - began_s == pytest.approx(limits.CONTROL_ARRIVAL_S)
        assert await client.line() is None


@trio_test
async def test_a_trickle_does_not_prolong_it(autojump_clock: MockClock) -> None:
    desk = Desk()
    async with desk.client() as client:
        await client.stream.send_all(b'{"v":1,"op":"take","body":99}\n')
        with pytest.raises(trio.BrokenResourceError):
            for second in range(99):
                assert desk.bodies.held <= second + 1
                await client.stream.send_all(b"x")
                await trio.sleep(1)
        assert second < 33
        assert desk.bodies.held == 0


@trio_test
async def test_the_silent_are_let_go_unless_they_keep_something(autojump_clock: MockClock) -> None:
    desk = Desk()
    async with desk.client() as idle, desk.client() as keeping:
        handle = (await keeping.ask("keep"))["handle"]
        assert await idle.line() is None
        assert trio.current_time() >= limits.CONTROL_IDLE_S
        await trio.sleep(10 * limits.CONTROL_IDLE_S)
        await keeping.ask("close", handle=handle)
        assert await keeping.line() is None


@trio_test
async def test_who_does_not_take_the_answer_is_let_go(autojump_clock: MockClock) -> None:
    desk = Desk()
    pair = trio.testing.lockstep_stream_pair()
    async with desk.client(stream_pair=pair) as client:
        await client.send("give", length=1000)
        await trio.sleep(limits.CONTROL_SEND_S - 1)
        assert 1000 <= desk.bodies.held < 1200  # body and line
        assert desk.ended == 0
        await trio.sleep(2)
        assert (desk.bodies.held, desk.ended) == (0, 1)


@trio_test
async def test_what_is_kept_is_bounded_and_goes_with_the_connection(autojump_clock: MockClock) -> None:
    desk = Desk()
    async with desk.client() as client:
        handles = [(await client.ask("keep"))["handle"] for _ in range(limits.CONTROL_KEPT_MAX)]
        with pytest.raises(FsError, match="may hold 64 things open") as caught:
            await client.ask("keep")
        assert caught.value.errno == errno.EMFILE
        Thing.open -= 1  # it was not kept, so it is nobody's to close
        await client.ask("use", handle=handles[9])
        await client.ask("close", handle=handles[9])
        for wrong in (handles[9], 10**30, -1, "1", None, [1], True):
            with pytest.raises(FsError) as caught:
                await client.ask("use", handle=wrong)
            assert caught.value.errno == errno.EBADF
        assert Thing.open == limits.CONTROL_KEPT_MAX - 1
    assert Thing.open == 0


@trio_test
async def test_what_one_connection_keeps_is_not_there_for_another(autojump_clock: MockClock) -> None:
    desk = Desk()
    async with desk.client() as one, desk.client() as other:
        handle = (await one.ask("keep"))["handle"]
        with pytest.raises(FsError, match="Nothing of that number"):
            await other.ask("use", handle=handle)


def test_one_user_cannot_keep_everything_open() -> None:
    tally = Tally()
    for uid in (1, 2):
        connection = Connection(tally, uid)
        for number in range(limits.CONTROL_KEPT_USER_MAX):
            if number % limits.CONTROL_KEPT_MAX == 0:
                connection = Connection(tally, uid)
            connection.keep(Nothing())
        with pytest.raises(FsError, match="Too much is held open") as caught:
            Connection(tally, uid).keep(Nothing())
        assert caught.value.errno == errno.ENFILE
    with pytest.raises(FsError, match="Too much is held open"):
        Connection(tally, 3).keep(Nothing())


@trio_test
async def test_half_bodies_of_many_wait_for_each_other_and_all_arrive(autojump_clock: MockClock) -> None:
    desk = Desk()
    size = limits.CONTROL_BODY_BYTES_MAX
    answered = 0

    async def send_slowly(uid: int) -> None:
        nonlocal answered
        async with desk.client(uid) as client:
            await client.stream.send_all(encode_request(Request("take", {}, size)))
            for _ in range(8):
                await client.stream.send_all(bytes(size // 8))
                await trio.sleep(0.1)
            assert (await client.reply())[0].result["body"] == digest(bytes(size))
            answered += 1

    peak = 0
    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(send_slowly, number % 4)
        while answered < 60:
            peak = max(peak, desk.bodies.held)
            assert desk.bodies.held <= limits.CONTROL_BODIES_BYTES_MAX + size
            await trio.sleep(0.05)
    assert peak > limits.CONTROL_BODIES_BYTES_MAX - size
    assert desk.bodies.held == 0


@trio_test
async def test_a_user_with_many_half_bodies_stops_nobody_else(autojump_clock: MockClock) -> None:
    desk = Desk()
    size = limits.CONTROL_BODY_BYTES_MAX
    async with trio.open_nursery() as nursery:

        async def hold_half() -> None:
            async with desk.client(uid=1) as client:
                await client.stream.send_all(encode_request(Request("take", {}, size)) + bytes(size - 1))
                await trio.sleep_forever()

        for _ in range(40):
            nursery.start_soon(hold_half)
        await trio.sleep(1)
        assert desk.bodies.held <= limits.CONTROL_BODIES_USER_BYTES_MAX + size
        async with desk.client(uid=2) as client:
            assert (await client.ask("take", bytes(size)))["body"] == digest(bytes(size))
        assert trio.current_time() < 2
        nursery.cancel_scope.cancel()
    assert desk.bodies.held == 0


@trio_test
async def test_between_any_two_requests_others_have_their_turn(autojump_clock: MockClock) -> None:
    began = answered = most = 0

    async def count(call: Call) -> Mapping[str, Any]:
        nonlocal began
        began += 1
        return {}

    desk = Desk([Operation("count", ANYBODY, count)])

    async def ask() -> None:
        nonlocal answered
        async with desk.client() as client:
            await client.stream.send_all(encode_request(Request("count")) * 20)
            for _ in range(20):
                await client.reply()
        answered += 1

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
        while answered < 50:
            before = began
            await trio.lowlevel.checkpoint()
            most = max(most, began - before)
    assert (began, most <= 2) == (1000, True)  # the order within a round is by chance


@trio_test
async def test_a_bug_shows_neither_arguments_nor_body_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with Desk().client() as client:
        await client.send("break", SECRET.encode(), token=SECRET)
        with pytest.raises(DaemonError):
            await client.reply()
    assert "op=break" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert SECRET not in caplog.text
    caplog.clear()


@settings(deadline=None, max_examples=150)
@given(STREAMS, st.integers(1, 70_000))
def test_whatever_is_sent_is_answered_as_far_as_it_can_be_understood(sent: bytes, step: int) -> None:
    logging.getLogger("ciaosfsd.control.conversation").disabled = True
    try:
        trio.run(_converse, sent, max(step, len(sent) // 200), clock=MockClock(autojump_threshold=0))
    finally:
        logging.getLogger("ciaosfsd.control.conversation").disabled = False


async def _converse(sent: bytes, step: int) -> None:
    desk = Desk()
    async with desk.client() as client:
        assert isinstance(client.stream, trio.StapledStream)
        try:
            for at in range(0, len(sent), step):
                await client.stream.send_all(sent[at : at + step])
            await client.stream.send_eof()
        except trio.BrokenResourceError:
            pass  # it has ended: what it said before is there
        replies = await client.all_replies()
    assert shown(replies) == expected(sent)
    assert (desk.bodies.held, desk.ended, Thing.open) == (0, 1, 0)
