"""Keeping processors awake: what the kernel is asked for, from which pace on, and for how long."""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path

import pytest
import trio
from ciaosfsd.fuse.awake import (
    GUEST_DRIVER,
    LOOK_S,
    NO_LIMIT_US,
    QUIET_S,
    REQUESTS_PER_S,
    SHALLOW_US,
    Awake,
    open_awake,
)
from ciaosfsd.fuse.loop import Loop

from tests.unit.ciaosfsd.test_loop import pipe


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """Keeps what is written to it, one after the other."""
    path = tmp_path / "device"
    path.touch()
    return path


@pytest.fixture
def idle_driver(tmp_path: Path) -> Path:
    path = tmp_path / "current_driver"
    path.write_text(f"{GUEST_DRIVER}\n")
    return path


def asked(device: Path) -> list[int]:
    return [value for (value,) in struct.iter_unpack("=i", device.read_bytes())]


def requests_at(pace: float, until_s: float, awake: Awake) -> None:
    """Have `awake` look each millisecond, up to a moment, at requests that come at this pace."""
    for step in range(1000 + round(until_s * 1000)):
        awake.look(round(pace * step / 1000), step / 1000)


@pytest.mark.parametrize(("driver", "limit_us"), [(GUEST_DRIVER, 0), ("intel_idle", SHALLOW_US)])
def test_quick_requests_keep_processors_awake(
    device: Path, idle_driver: Path, driver: str, limit_us: int
) -> None:
    idle_driver.write_text(f"{driver}\n")
    with open_awake(device=device, idle_driver=idle_driver) as awake:
        requests_at(REQUESTS_PER_S * 1.5, 1.0, awake)
        assert awake.is_held
    assert asked(device) == [limit_us]


def test_slow_requests_do_not(device: Path, idle_driver: Path) -> None:
    with open_awake(device=device, idle_driver=idle_driver) as awake:
        requests_at(REQUESTS_PER_S * 0.5, 1.0, awake)
        assert not awake.is_held
    assert asked(device) == []


def test_a_slower_pace_ends_it_and_a_short_break_does_not(device: Path, idle_driver: Path) -> None:
    with open_awake(device=device, idle_driver=idle_driver) as awake:
        awake.look(0, 1.0)
        awake.look(1000, 1.0 + LOOK_S)
        awake.look(1001, 1.0 + 2 * LOOK_S)
        assert awake.is_held
        awake.look(1002, 1.0 + 2 * LOOK_S + QUIET_S)
        assert not awake.is_held
        awake.look(2002, 1.0 + 3 * LOOK_S + QUIET_S)
    assert asked(device) == [0, NO_LIMIT_US, 0]
    assert awake.held_s == pytest.approx(LOOK_S + QUIET_S)


def test_requests_after_a_long_break_are_not_quick(device: Path, idle_driver: Path) -> None:
    with open_awake(device=device, idle_driver=idle_driver) as awake:
        awake.look(0, 1.0)
        awake.look(100, 10.0)
        assert not awake.is_held
    assert asked(device) == []


@pytest.mark.parametrize("why", ["not wanted", "no device", "no driver", "no driver known"])
def test_nothing_is_asked_for(device: Path, idle_driver: Path, why: str) -> None:
    if why == "no device":
        device = device.parent / "missing"
    if why == "no driver":
        idle_driver.write_text("none\n")
    if why == "no driver known":
        idle_driver.unlink()
    with open_awake(is_wanted=why != "not wanted", device=device, idle_driver=idle_driver) as awake:
        requests_at(REQUESTS_PER_S * 10, 1.0, awake)
        assert not awake.is_held
    assert why == "no device" or asked(device) == []


def test_a_kernel_that_refuses_is_asked_once(idle_driver: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_awake(device=Path("/dev/full"), idle_driver=idle_driver) as awake:
        requests_at(REQUESTS_PER_S * 10, 1.0, awake)
        assert not awake.is_held
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "No space left" in caplog.text


def test_it_ends_when_there_are_no_more_requests(device: Path, idle_driver: Path) -> None:
    async def main() -> None:
        with pipe() as (reading, writing), open_awake(device=device, idle_driver=idle_driver) as awake:
            loop = Loop(awake=awake)

            async def burst() -> None:
                with trio.fail_after(10):
                    while not awake.is_held:
                        os.write(writing, b"r" * 1000)
                        for _ in range(1000):
                            await loop.wait_readable(reading)
                            os.read(reading, 1)
                    while awake.is_held:  # noqa: ASYNC110 - the code under test has no event
                        await trio.sleep(QUIET_S)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(awake.rest_when_quiet, lambda: loop.requests)
                await burst()
                await burst()
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert asked(device) == [0, NO_LIMIT_US, 0, NO_LIMIT_US]
