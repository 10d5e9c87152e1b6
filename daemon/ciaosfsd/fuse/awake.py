"""Keeps idle processors from sleeping deeply while requests come quickly.

A call on the mount is two wake-ups: the daemon for the request, the client for the answer, each on a processor that has
just become idle. In a virtual machine an idle processor halts, and waking it takes the hypervisor 50 us and more, several
times what the request takes. The kernel has an interface for processes that this hurts, *PM quality of service*
(Documentation/power/pm_qos_interface.rst): whoever holds `/dev/cpu_dma_latency` open and has written a time in microseconds
into it gets idle states that are left within that time, on all processors, until it writes another or ends, however it ends.

With it one process made 2.1 times as many files per second, appended to 2.4, renamed 2.0 and deleted 1.6 times as many, in
six runs each by turns on a virtual machine with two processors; what moves many bytes gained nothing that could be seen.

Idle processors take more power meanwhile (in a virtual machine, all they can), so it is asked for only from
`REQUESTS_PER_S` on and until `QUIET_S` after the last request. Only root may; `keep_awake` in `ciaosfs.toml` says no.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from ciaosfs.base import clock

log = logging.getLogger(__name__)

DEVICE = Path("/dev/cpu_dma_latency")
IDLE_DRIVER = Path("/sys/devices/system/cpu/cpuidle/current_driver")
GUEST_DRIVER = "haltpoll"
"""The driver of virtual machines. It looks at nothing but whether the time is 0: then it waits without halting."""
SHALLOW_US = 10
"""For all other drivers: leaves the states that are left within a request's time, and these take little power."""
NO_LIMIT_US = 2_000_000_000
"""The kernel's own value for nothing asked for."""

REQUESTS_PER_S = 2000
"""From here on waking up is a good part of the time. Streams of 1 MiB requests do not come to it, and would gain nothing."""
LOOK_S = 0.002
"""Over so long the pace is taken: a walk of 3,000 names, which takes 25 ms, was 9 % slower with 10 ms."""
QUIET_S = 0.02
"""A slower pace, or none, for so long ends it."""


class Awake:
    """Whether idle processors are kept awake, by the pace of requests. Made by `open_awake`.

    `held_s` sums up for how long that was so, but for the time that has not ended.
    """

    def __init__(self, descriptor: int, limit_us: int) -> None:
        """`descriptor` is of DEVICE, open for writing; -1: nothing is ever asked for."""
        self.is_held = False
        self.held_s = 0.0
        self._begun = 0.0
        self._descriptor = descriptor
        self._limit_us = limit_us
        self._count = 0
        self._next_look = 0.0
        self._end = 0.0
        self._begins = trio.lowlevel.ParkingLot()

    def look(self, requests: int, now: float) -> None:
        """To be called often, with all requests so far and the monotonic time."""
        if now < self._next_look or self._descriptor == -1:
            return
        lasted_s = now - self._next_look + LOOK_S
        if requests - self._count >= REQUESTS_PER_S * lasted_s:
            self._end = now + QUIET_S
        self._set(now < self._end, now)
        self._count = requests
        self._next_look = now + LOOK_S

    async def rest_when_quiet(self, count_requests: Callable[[], int]) -> None:
        """Let processors sleep whenever there were no requests for QUIET_S, of which `look` is not called. For ever.

        Costs nothing while they may sleep, and no request anything while they are kept awake."""
        while True:
            if not self.is_held:
                await self._begins.park()
            before = count_requests()
            await trio.sleep(QUIET_S)
            if count_requests() == before:
                self.rest(before, clock.monotonic_s())

    def rest(self, requests: int, now: float) -> None:
        """There will be no requests for now."""
        self._set(False, now)
        self._count = requests
        self._next_look = now + LOOK_S

    def _set(self, is_held: bool, now: float) -> None:
        if is_held == self.is_held:
            return
        if is_held:
            self._begun = now
        else:
            self.held_s += now - self._begun
        try:
            os.write(self._descriptor, struct.pack("=i", self._limit_us if is_held else NO_LIMIT_US))
        except OSError as error:
            log.warning("the kernel does not take what was to keep processors awake: %s", error.strerror)
            self._descriptor = -1
            self.is_held = False
        else:
            self.is_held = is_held
            if is_held:
                self._begins.unpark_all()


@contextmanager
def open_awake(
    *, is_wanted: bool = True, device: Path = DEVICE, idle_driver: Path = IDLE_DRIVER
) -> Iterator[Awake]:
    """For as long as the block lasts; one that never asks for anything where it may not, or it would be of no use."""
    limit_us = _limit_us(idle_driver) if is_wanted else None
    descriptor = -1
    if limit_us is not None:
        try:
            descriptor = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            log.info("processors sleep as they like: %s: %s", device, error.strerror)
    try:
        yield Awake(descriptor, limit_us or 0)
    finally:
        if descriptor != -1:
            os.close(descriptor)


def _limit_us(idle_driver: Path) -> int | None:
    try:
        driver = idle_driver.read_text().strip()
    except OSError:
        return None
    if driver == "none":
        return None
    return 0 if driver == GUEST_DRIVER else SHALLOW_US
