"""What counting costs a request: the guard around handlers as it is, against one that does not count.

    python -m tools.bench_metrics

Each figure is the best of several rounds that alternate, in nanoseconds per call of a handler that does nothing; what
a request costs in all is ten microseconds at the least, and mostly far more (`tools/bench_mount.py`). Amid requests the
counting costs more than here, where the processor's caches hold nothing else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

if not __package__:  # started as a file: the modules beside it are found from the root of the repository
    sys.path[:0] = [
        str(Path(__file__).resolve().parents[1]),
        str(Path(__file__).resolve().parents[1] / "daemon"),
    ]

from ciaosfsd.fuse.errors import guarded, translate
from ciaosfsd.metrics.requests import Requests

CALLS = 100_000
ROUNDS = 7
CONTEXT: Any = SimpleNamespace(pid=1)


class Idle:
    """Handlers that do nothing."""

    def getattr(self, ino: int, ctx: Any) -> int:
        return ino

    async def read(self, fh: int, offset: int, size: int) -> bytes:
        return b""


def plain_getattr(handler: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """The guard without counting, of a plain handler."""

    async def guard(ino: int, ctx: Any) -> Any:
        try:
            return handler(ino, ctx)
        except Exception as error:  # noqa: BLE001 - what the guard of the daemon does
            raise translate(error, "getattr") from None

    return guard


def plain_read(handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The guard without counting, of an async handler."""

    async def guard(fh: int, offset: int, size: int) -> Any:
        try:
            return await handler(fh, offset, size)
        except Exception as error:  # noqa: BLE001 - what the guard of the daemon does
            raise translate(error, "read") from None

    return guard


def measure_ns(function: Callable[..., Awaitable[Any]], *arguments: Any) -> float:
    """The time one call takes."""

    async def many() -> None:
        for _ in range(CALLS):
            await function(*arguments)

    task = many()
    started = time.perf_counter_ns()
    try:
        task.send(None)  # nothing in it waits for a loop
    except StopIteration:
        return (time.perf_counter_ns() - started) / CALLS
    raise AssertionError("a handler that does nothing waits for something")


def main() -> None:
    handlers = Idle()
    quiet, watched = Requests(), Requests()
    counting, watching = guarded(handlers, quiet), guarded(handlers, watched)
    cases: dict[str, tuple[Callable[..., Awaitable[Any]], tuple[Any, ...]]] = {
        "getattr, not counted": (plain_getattr(handlers.getattr), (1, CONTEXT)),
        "getattr, counted": (counting.getattr, (1, CONTEXT)),
        "getattr, watched": (watching.getattr, (1, CONTEXT)),
        "read, not counted": (plain_read(handlers.read), (1, 0, 4096)),
        "read, counted": (counting.read, (1, 0, 4096)),
        "read, watched": (watching.read, (1, 0, 4096)),
    }
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        watched.watch()
        for name, (function, arguments) in cases.items():
            best[name] = min(best.get(name, float("inf")), measure_ns(function, *arguments))
    for name, duration in best.items():
        print(f"{name:22} {duration:7.0f} ns")


if __name__ == "__main__":
    main()
