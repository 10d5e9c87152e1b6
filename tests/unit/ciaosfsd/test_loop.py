"""The request loop's pace: who runs, who waits, who is woken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from ciaosfsd.fuse.loop import ESCAPES_MAX, REQUESTS_MAX, Loop, UnfairLock
from ciaosfsd.fuse.waiting import Waiting


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


class Session:
    """pyfuse3's session loop in Python: requests are single bytes, each handled by `handle`."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self.loop = loop
        self.lock = loop.Lock()
        self.fd = fd
        self.exited = False
        self.readers = 0
        self.workers = 0
        self.handled: list[int] = []
        self.blocked = trio.Event()

    async def worker(self, nursery: object) -> None:
        self.workers += 1
        while not self.exited:
            self.readers += 1
            try:
                async with self.lock:
                    if self.exited:
                        break
                    await self.loop.lowlevel.wait_readable(self.fd)
            except trio.ClosedResourceError:
                break
            finally:
                self.readers -= 1
            request = os.read(self.fd, 1)[0]
            if not self.readers:
                nursery.start_soon(self.worker, nursery, name="worker")  # type: ignore[attr-defined]
            await self.handle(request)

    async def handle(self, request: int) -> None:
        if request == ord("b"):
            await self.blocked.wait()
        if request == ord("!"):
            raise ZeroDivisionError("escaped")
        self.handled.append(request)

    def terminate(self) -> None:
        self.exited = True
        self.loop.lowlevel.notify_closing(self.fd)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with self.loop.open_nursery() as nursery:
            nursery.start_soon(self.worker, nursery, name="worker")
            task_status.started()


async def until(condition: object) -> None:
    """Wait in the loop's own time until `condition()` holds; a test that waits for ever is stopped."""
    with trio.fail_after(5):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - the code under test has no event
            await trio.sleep(0.001)


def test_a_worker_blocked_in_a_handler_lets_another_receive() -> None:
    async def main() -> None:
        with pipe() as (reading, writing):
            session = Session(Loop(), reading)
            async with trio.open_nursery() as nursery:
                await nursery.start(session.run)
                os.write(writing, b"ab")
                os.write(writing, b"cbd")
                await until(lambda: len(session.handled) == 3)
                assert bytes(session.handled) == b"acd"
                session.blocked.set()
                await until(lambda: len(session.handled) == 5)
                session.terminate()

    trio.run(main)


def test_many_blocked_handlers_stop_nobody() -> None:
    async def main() -> None:
        with pipe() as (reading, writing):
            session = Session(Loop(), reading)
            async with trio.open_nursery() as nursery:
                await nursery.start(session.run)
                os.write(writing, b"b" * 100 + b"a")
                await until(lambda: session.handled == [ord("a")])
                session.blocked.set()
                await until(lambda: len(session.handled) == 101)
                session.terminate()

    trio.run(main)


def test_a_worker_that_does_not_block_keeps_the_lock_to_itself() -> None:
    async def main() -> None:
        with pipe() as (reading, writing):
            session = Session(Loop(), reading)
            async with trio.open_nursery() as nursery:
                await nursery.start(session.run)
                os.write(writing, b"a")
                await until(lambda: session.workers > 1 and session.lock.waiting == session.workers - 1)
                workers, waiting = session.workers, session.lock.waiting
                os.write(writing, b"a" * 500)
                await until(lambda: len(session.handled) == 501)
                assert (session.workers, session.lock.waiting) == (workers, waiting)
                session.terminate()

    trio.run(main)


def test_others_run_while_requests_never_end() -> None:
    async def main() -> None:
        with pipe() as (reading, writing):
            session = Session(Loop(), reading)
            steps = 0

            async def count_steps() -> None:
                nonlocal steps
                while True:
                    await trio.lowlevel.checkpoint()
                    steps += 1

            async with trio.open_nursery() as nursery:
                os.write(writing, b"a" * (REQUESTS_MAX * 20))
                nursery.start_soon(count_steps)
                await nursery.start(session.run)
                await until(lambda: len(session.handled) == REQUESTS_MAX * 20)
                assert steps >= 15
                session.terminate()
                nursery.cancel_scope.cancel()

    trio.run(main)


@pytest.mark.parametrize("requests", [b"", b"a", b"abb" * 3])
def test_closing_wakes_everybody(requests: bytes) -> None:
    async def main() -> None:
        with pipe() as (reading, writing):
            session = Session(Loop(), reading)
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    await nursery.start(session.run)
                    if requests:
                        os.write(writing, requests)
                    await until(lambda: len(session.handled) == requests.count(b"a"))
                    session.terminate()
                    session.blocked.set()

    trio.run(main)


def test_closing_during_a_checkpoint_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with pipe() as (reading, writing):
            loop = Loop()

            async def close_meanwhile() -> None:
                loop.notify_closing(reading)

            monkeypatch.setattr(trio.lowlevel, "checkpoint", close_meanwhile)
            os.write(writing, b"a")
            with pytest.raises(trio.ClosedResourceError):
                await loop.wait_readable(reading)

    trio.run(main)


def test_cancelling_ends_workers_that_wait() -> None:
    async def main() -> None:
        with pipe() as (reading, writing):
            session = Session(Loop(), reading)
            async with trio.open_nursery() as nursery:
                await nursery.start(session.run)
                os.write(writing, b"abb")
                await until(lambda: session.handled == [ord("a")])
                nursery.cancel_scope.cancel()
            assert not session.lock.held
            assert session.lock.waiting == 0

    trio.run(main)


def test_a_request_that_vanished_restarts_the_worker_that_looked_for_it() -> None:
    async def main() -> None:
        with pipe() as (reading, writing):
            waiting = Waiting()
            loop = Loop(waiting=waiting)
            session = Session(loop, reading)
            async with trio.open_nursery() as nursery:
                await nursery.start(session.run)
                os.write(writing, b"a")
                await until(lambda: session.handled == [ord("a")])
                really, lies = waiting._poll, iter([True, True])
                waiting._poll = lambda timeout: [(reading, 1)] if next(lies, False) else really(timeout)
                os.write(writing, b"c")
                await until(lambda: len(session.handled) == 2)
                os.write(writing, b"d")
                await until(lambda: len(session.handled) == 3)
                assert loop.vanished >= 1
                assert loop.escaped == 0
                session.terminate()

    trio.run(main)


def test_what_escapes_from_a_worker_is_logged_and_the_worker_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        with pipe() as (reading, writing):
            loop = Loop()
            session = Session(loop, reading)
            async with trio.open_nursery() as nursery:
                await nursery.start(session.run)
                os.write(writing, b"a!c")
                await until(lambda: len(session.handled) == 2)
                assert loop.escaped == 1
                session.terminate()

    trio.run(main)
    assert "ZeroDivisionError: escaped" in caplog.text


def test_too_much_that_escapes_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_sleep(seconds: float) -> None:
        await trio.lowlevel.checkpoint()

    async def main() -> None:
        with pipe() as (reading, writing):
            session = Session(Loop(), reading)
            os.write(writing, b"!" * (ESCAPES_MAX + 1))
            monkeypatch.setattr(trio, "sleep", no_sleep)
            await session.run()

    with pytest.raises(ExceptionGroup) as caught:
        trio.run(main)
    assert caught.group_contains(ZeroDivisionError)


def test_the_lock_is_handed_over_in_order() -> None:
    async def main() -> None:
        lock = UnfairLock()
        order: list[int] = []

        async def take(number: int) -> None:
            async with lock:
                order.append(number)

        async with trio.open_nursery() as nursery:
            async with lock:
                for number in range(5):
                    nursery.start_soon(take, number)
                    while lock.waiting <= number:
                        await trio.lowlevel.checkpoint()
            for _ in range(20):
                lock.hand_over()
                await trio.lowlevel.checkpoint()
        assert order == [0, 1, 2, 3, 4]

    trio.run(main)


def test_idle_moments_are_used_and_requests_go_first() -> None:
    async def main() -> None:
        with pipe() as (reading, writing):
            left = 3
            seen: list[int] = []

            def idle() -> bool:
                nonlocal left
                if not left:
                    return False
                left -= 1
                seen.append(len(session.handled))
                if left == 1:
                    os.write(writing, b"2")  # a request that comes meanwhile
                return True

            session = Session(Loop(waiting=Waiting(idle=idle)), reading)
            os.write(writing, b"1")
            async with trio.open_nursery() as nursery:
                await nursery.start(session.run)
                await until(lambda: not left and len(session.handled) == 2)
                session.terminate()
            assert session.handled == [ord("1"), ord("2")]
            assert seen == [1, 1, 2], (
                "after the request that was there, and after the one that came meanwhile"
            )

    trio.run(main)


def test_what_was_left_to_idle_moments_is_done_before_the_loop_parks() -> None:
    async def main() -> None:
        with pipe() as (reading, writing):
            parked_after: list[int] = []
            session = Session(Loop(settle=lambda: parked_after.append(len(session.handled))), reading)
            os.write(writing, b"12")
            async with trio.open_nursery() as nursery:
                await nursery.start(session.run)
                await until(lambda: parked_after == [2])
                os.write(writing, b"b")  # waits in its handler: there are no idle moments, and yet it parks
                await until(lambda: parked_after == [2, 2])
                session.blocked.set()
                session.terminate()

    trio.run(main)


def test_nothing_lingers_while_others_wait_for_threads() -> None:
    async def main() -> None:
        with pipe() as (reading, writing):
            asked = 0

            def idle() -> bool:
                nonlocal asked
                asked += 1
                return False

            session = Session(
                Loop(waiting=Waiting(linger_s=60.0, idle=idle), is_awaited=lambda: True), reading
            )
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    await nursery.start(session.run)
                    os.write(writing, b"1")
                    await until(lambda: session.handled == [ord("1")])
                    session.terminate()
            assert asked == 0

    trio.run(main)


def test_work_ahead_without_end_keeps_nobody_waiting() -> None:
    async def main() -> None:
        with pipe() as (reading, writing):
            session = Session(Loop(waiting=Waiting(idle=lambda: True)), reading)
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    await nursery.start(session.run)
                    for count in range(1, 4):
                        os.write(writing, b"a")
                        await until(lambda wanted=count: len(session.handled) == wanted)
                    session.terminate()

    trio.run(main)
