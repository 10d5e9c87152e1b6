"""The life of the daemon: start order, readiness, signals, stop order.

Start: store opened, mounted, control socket, requests served, mount answers, `on_ready`. Stop, by umount(8),
by SIGTERM or SIGINT, or by the control socket: unmounted, control requests under way answered, socket gone,
everything committed and synced, store closed. SIGTERM means a clean unmount; when files are in use, everything
written so far is taken over and made durable, and then the mount goes away under its users (`fuse.session`).
SIGHUP, of a terminal that closes, means the same.
Asking twice changes nothing: what was written is worth the wait, and SIGKILL is there for those who differ.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from pathlib import Path

import trio

from ciaosfs.base.config import StoreConfig
from ciaosfs.base.errors import CiaosError
from ciaosfsd import services

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SWITCH_INTERVAL_S = 0.0005
"""How long a worker thread may keep the interpreter lock from the loop. Python's own 5 ms are a hundred requests'
worth. It bounds the worst case; throughput was measured the same with both, threads being in C most of the time."""


async def run(
    config: StoreConfig,
    mountpoint: Path,
    socket: Path,
    on_ready: Callable[[Sequence[str]], None],
    mount_options: Collection[str] = (),
) -> None:
    """Mount and serve until unmounted. Raises CiaosError, perhaps inside a group, for what went wrong."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    stopping = trio.Event()
    with trio.open_signal_receiver(*STOP_SIGNALS, signal.SIGUSR1) as signals:
        # Threads are shown even when the loop hangs; the tasks, by the handler this chains to, when it does not.
        faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=True, chain=True)
        try:
            async with services.build(config, mountpoint, socket, stopping.set, mount_options) as running:
                # What is there by now stays. Python's collector of cycles need not look at it again whenever it looks at
                # everything, which it does in the loop: 5 ms each time for 38,000 objects, 18 to 25 on a busy machine.
                gc.collect()
                gc.freeze()
                await _serve(running, signals, stopping, on_ready)
        finally:
            faulthandler.unregister(signal.SIGUSR1)


async def _serve(
    running: services.Services,
    signals: AsyncIterator[int],
    stopping: trio.Event,
    on_ready: Callable[[Sequence[str]], None],
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals, signals, stopping)
        nursery.start_soon(_stop_when, stopping, running.stop)
        await nursery.start(running.control.serve)
        if running.metrics is not None:
            nursery.start_soon(running.metrics.serve)
        nursery.start_soon(running.session.work_ahead)
        nursery.start_soon(running.session.rest_when_quiet)
        nursery.start_soon(running.session.give_back_memory, lambda: running.control.calls)
        nursery.start_soon(_report_ready, running, on_ready)
        await running.session.serve()
        log.info("no longer mounted, closing")
        await running.control.close()
        nursery.cancel_scope.cancel()


async def _watch_signals(signals: AsyncIterator[int], stopping: trio.Event) -> None:
    async for number in signals:
        if number == signal.SIGUSR1:
            log.info("tasks:\n%s", "\n".join(_task_stacks()))
        else:
            log.info("stopping on %s", signal.Signals(number).name)
            stopping.set()


async def _stop_when(stopping: trio.Event, stop: Callable[[], Awaitable[None]]) -> None:
    await stopping.wait()
    await stop()


async def _report_ready(running: services.Services, on_ready: Callable[[Sequence[str]], None]) -> None:
    await running.session.wait_answering()
    on_ready(running.reports)


def _task_stacks() -> list[str]:
    lines: list[str] = []
    root = trio.lowlevel.current_root_task()
    tasks = [] if root is None else [root]
    while tasks:
        task = tasks.pop()
        frames = traceback.StackSummary.extract(task.iter_await_frames())
        last = frames[-1] if frames else None
        lines.append(
            f"  {task.name}: {last.filename}:{last.lineno} {last.name}" if last else f"  {task.name}"
        )
        for nursery in task.child_nurseries:
            tasks.extend(nursery.child_tasks)
    return lines


def cause_of(error: BaseException) -> BaseException:
    """What a group of exceptions is about: the first CiaosError in it, else the first of all."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [cause_of(inner) for inner in error.exceptions]
    return next((cause for cause in causes if isinstance(cause, CiaosError)), causes[0])
