"""Steps in which the store heals, and its drives come and go: scrub, repair, sweep, drain, replace, while others are done.

Which drives are *unlucky* must not change while anything bad may be on the old ones: then more than parity could be bad.
So a good drive is emptied, and others become unlucky, in a *truce* only: nothing goes wrong from when everything is
proved to be whole until the drive is gone, but for crashes, full drives, and the loss of the database. Shards of good
drives are moved in a truce only, too: to an unlucky one would be one too many.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

import trio

from ciaosfs.base.errors import CiaosError, DriveGoneError, UsageError
from tests.model.machine import Machine, Step, Steps
from tests.sim import needles
from tests.sim.care import Care
from tests.sim.life import Life

DRIVES_MAX = 8


async def beside(life: Life, work: Callable[[], Awaitable[object]]) -> None:
    """Work goes on while the next steps are done; it may fail for a reason, or since no drive is left for it."""

    async def bear() -> None:
        try:
            await refusing(life, work)
        except DriveGoneError as error:
            life.world.note(f"nothing done: {error}")

    life.nursery.start_soon(bear)
    await trio.lowlevel.checkpoint()


async def refusing(life: Life, work: Callable[[], Awaitable[object]]) -> bool:
    """Whether the work was done; a refusal must have a reason."""
    try:
        await work()
    except UsageError:
        return False
    except CiaosError:
        if not life.is_troubled and not life.world.is_over:
            raise
        return False
    return True


async def scrub(machine: Machine, step: Step) -> None:
    """With the sweep of what nobody refers to; sometimes it is waited for."""
    life = cast(Life, machine)
    if life.care is None:
        return
    jobs = life.care.jobs
    number = await jobs.scrubs.now(1.0)
    if step.a % 2:
        with trio.move_on_after(60):
            await jobs.runner.wait(number)


async def repair(machine: Machine, step: Step) -> None:
    """What is known to be damaged, or missing, is rebuilt."""
    life = cast(Life, machine)
    if life.care is not None:
        healer = life.care.jobs.healer
        await beside(life, healer.settle if step.a % 2 else healer.look)


async def mend(machine: Machine, step: Step) -> None:
    """A shard is written anew elsewhere, good or bad; outside of a truce only what lies on an unlucky drive."""
    life = cast(Life, machine)
    meta = life.fs._meta
    ids = meta.stripes.ids_after(0)
    record = meta.stripes.load(ids[step.a % len(ids)]) if ids else None
    if record is None or life.care is None:
        return
    drives = {place.shard_index: meta.volumes.load(place.volume_id) for place in record.places}
    indexes = [
        index
        for index, volume in drives.items()
        if volume is not None and (life.is_truce or volume.drive in life.unlucky)
    ]
    if indexes:
        index = indexes[step.b % len(indexes)]
        await beside(life, lambda: life.fs.parts.mender.mend(record.stripe_id, [index]))


async def hold_jobs(machine: Machine, step: Step) -> None:
    """A job is paused, or all that are paused go on."""
    care = cast(Life, machine).care
    if care is None:
        return
    runner = care.jobs.runner
    unfinished = [status for status in runner.jobs() if not status.is_finished]
    if unfinished and step.a % 3 == 0:
        runner.pause(unfinished[step.b % len(unfinished)].job_id)
    for status in unfinished if step.a % 3 else []:
        runner.resume(status.job_id)


async def add_drive(machine: Machine, step: Step) -> None:
    life = cast(Life, machine)
    world = life.world
    if life.care is not None and len(world.numbers()) < DRIVES_MAX:
        place = world.path / "drives" / f"n{len(world.uuids)}"
        await refusing(life, lambda: cast(Care, life.care).jobs.drives.add(place))


async def empty_unlucky(machine: Machine, step: Step) -> None:
    """A drive that may have lost much is emptied, replaced or not."""
    life = cast(Life, machine)
    care = life.care
    if care is None or not life.unlucky or life.is_truce or len(life.world.numbers()) >= DRIVES_MAX:
        return
    number = life.unlucky[step.a % len(life.unlucky)]
    await refusing(life, lambda: care.empty(number, is_replaced=bool(step.b % 3)))


async def truce(machine: Machine, step: Step) -> None:
    """Everything is healed, and must be whole; then other drives are unlucky, and perhaps a good one is emptied."""
    life = cast(Life, machine)
    care = life.care
    if care is None or life.is_truce or life.is_tight:
        return
    for _ in range(step.d % 4):
        needles.spoil(life.fs, life.world, life.unlucky, life.dice)
    life.is_truce = True
    try:
        await life.recover()
        await care.heal()
    except BaseException:
        life.is_truce = False  # a crash came first: nothing is proved to be whole
        raise
    numbers = life.world.numbers()
    life.unlucky = life.dice.sample(numbers, life.parity_count)
    life.were_unlucky |= set(life.unlucky)
    number = numbers[step.a % len(numbers)]
    life.world.note(f"unlucky {life.unlucky}")
    if step.b % 4 and len(numbers) < DRIVES_MAX:
        await refusing(life, lambda: care.empty(number, is_replaced=bool(step.c % 3)))


HEALING: Steps = {
    "scrub": (2, scrub),
    "repair": (3, repair),
    "mend": (5, mend),
    "hold_jobs": (1, hold_jobs),
    "add_drive": (0.5, add_drive),
    "empty_unlucky": (1, empty_unlucky),
    "truce": (3, truce),
}
