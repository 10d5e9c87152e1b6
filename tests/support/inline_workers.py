"""Worker threads without threads, and trio without chance: the same seed gives the same run.

`InlineWorkers` makes each call in the loop, after letting other tasks run a few times, so a flight stays under way while
requests go on. `run_the_same_way` also takes the wall out of the clock: whoever sleeps is woken at once when nobody has
anything else to do.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar, TypeVarTuple

import outcome
import trio
import trio.testing
from trio._core import _run as trio_run

from ciaosfs.base import clock
from ciaosfs.drive.workers import Call, Workers

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

TURNS_MAX = 12
"""How often others may run before a call is made."""


class InlineWorkers(Workers):
    """See the module. `seed` decides how long calls take, in turns of the loop."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._dice = random.Random(seed)

    async def __aenter__(self) -> InlineWorkers:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return

    def turns(self) -> int:
        """How often others run before the next call."""
        return self._dice.randrange(TURNS_MAX)

    def submit(self, call: Call) -> None:
        """Made by a task of its own, as it would be by a thread."""

        async def make() -> None:
            for _ in range(self.turns()):
                await trio.lowlevel.cancel_shielded_checkpoint()
            if call.claim:
                call.claim.pop()
                call.started_s = clock.monotonic_s()
                call.result = outcome.capture(call.function, *call.args)
                call.ended_s = clock.monotonic_s()
                call.ended()

        trio.lowlevel.spawn_system_task(make)

    def withdraw(self, call: Call) -> bool:
        if call.claim:
            call.claim.pop()
            return True
        return False

    def write_off(self, call: Call) -> None:
        raise AssertionError("a call in the loop is never late")

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        await trio.lowlevel.checkpoint()
        for _ in range(self.turns()):
            await trio.lowlevel.cancel_shielded_checkpoint()
        return function(*args)


def run_the_same_way(seed: int, function: Callable[[], Awaitable[T]]) -> T:
    """As trio.run, but the order of tasks depends on `seed` alone and no time passes."""
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio_run._r.seed(seed)
    try:
        return trio.run(function, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = False  # type: ignore[misc]
