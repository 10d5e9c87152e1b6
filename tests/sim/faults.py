"""What the simulator does besides changing the tree: syncs, and everything that goes wrong short of a crash.

Only *unlucky* drives, as many as there is parity, are ever damaged, lost or answer with errors; any drive may be full.
"""

from __future__ import annotations

from typing import cast

import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError
from ciaosfs.meta import reports
from tests.model import attributes, contents, names
from tests.model.machine import Machine, Step, Steps
from tests.sim import needles
from tests.sim.drives import DriveContent
from tests.sim.healing import HEALING
from tests.sim.life import Life


def one(machine: Machine, choice: int) -> DriveContent:
    """An unlucky drive; one that nobody has, when there is none, or truce."""
    life = cast(Life, machine)
    if life.is_truce or not life.unlucky:
        return DriveContent(0)
    return life.world.drive(life.unlucky[choice % len(life.unlucky)])


async def sync(machine: Machine, step: Step) -> None:
    handle = machine.handles[step.a % len(machine.handles)][0] if machine.handles and step.b % 2 else None
    await machine.sync_now(handle)


async def sync_beside(machine: Machine, step: Step) -> None:
    """Goes on while the next steps are done."""
    machine.nursery.start_soon(machine.sync_now)
    await trio.lowlevel.checkpoint()


async def many_small_files(machine: Machine, step: Step) -> None:
    """A directory of them, each with a few bytes."""
    for number in range(2 + step.a % 8):
        await names.create(machine, step._replace(b=step.b + number * 7, c=number))
        if machine.handles:
            await contents.append(machine, step._replace(a=len(machine.handles) - 1, b=number * 97, d=number))
            await contents.release(machine, step._replace(a=len(machine.handles) - 1))


async def replace_by_rename(machine: Machine, step: Step) -> None:
    """As programs save: write beside, close, rename over."""
    await names.create(machine, step)
    if machine.handles:
        await contents.write(machine, step._replace(a=len(machine.handles) - 1))
        await contents.release(machine, step._replace(a=len(machine.handles) - 1))
    await names.rename(machine, step._replace(d=step.d * 6))


async def stream(machine: Machine, step: Step) -> None:
    """More than a stripe in one file."""
    unit = limits.STRIPE_PAYLOAD_BYTES_MAX
    data = step.c.to_bytes(5, "big") * ((unit + step.b % unit) // 5)
    await contents.write_to(machine, step.a, lambda size: 0 if step.d % 2 else step.d % unit, data)


async def checkpoint(machine: Machine, step: Step) -> None:
    """SQLite's log is moved into the database, as after an idle minute."""
    life = cast(Life, machine)
    await trio.sleep(61 if step.a % 2 else 1)
    await life.stir()
    await machine.sync_now()


async def compact(machine: Machine, step: Step) -> None:
    """As the model does it, and as the compactor bears what is wrong with drives."""
    life = cast(Life, machine)
    await contents.compact(machine, step, life.excusing)


async def defragment(machine: Machine, step: Step) -> None:
    """Neighbouring pieces of files, as they were at the last commit, are copied while the next steps are done."""
    life = cast(Life, machine)
    with machine.fs._meta.reader() as reader:
        rows = reports.extents_after(reader, 0, 0, 1000)
    begin = step.a % (len(rows) + 1)
    room = limits.STRIPE_PAYLOAD_BYTES_MAX
    moves = []
    for ino, extent in rows[begin : begin + 1 + step.b % 60]:
        room -= extent.length
        if room >= 0:
            moves.append((ino, extent))
    machine.nursery.start_soon(life.excusing(machine.fs._room._compactor._merger.move), moves, "defragment")
    await trio.lowlevel.checkpoint()


async def image(machine: Machine, step: Step) -> None:
    """An image of the metadata is written while the next steps are done."""
    life = cast(Life, machine)

    async def write() -> None:
        try:
            await machine.fs.parts.imager.write()
        except CiaosError:
            if not life.is_troubled and not life.world.is_over:
                raise

    machine.nursery.start_soon(write)
    await trio.lowlevel.checkpoint()


async def look_at_drives(machine: Machine, step: Step) -> None:
    await machine.fs._chunks.refresh_drives()


async def go_away(machine: Machine, step: Step) -> None:
    content = one(machine, step.a)
    content.is_away = True
    if step.b % 3:
        await machine.fs._chunks.refresh_drives()


async def come_back(machine: Machine, step: Step) -> None:
    one(machine, step.a).is_away = False
    if step.b % 3:
        await machine.fs._chunks.refresh_drives()


async def fall_ill(machine: Machine, step: Step) -> None:
    """A drive answers some operations with errors, until it is well again."""
    content = one(machine, step.a)
    if content.fails:
        content.fails.clear()
    else:
        content.fails |= [{"read"}, {"write"}, {"sync"}, {"create"}, {"read", "write", "sync", "create"}][
            step.b % 5
        ]


async def stray(machine: Machine, step: Step) -> None:
    """A drive loses or misplaces some writes and says that all is well; or does so no more."""
    content = one(machine, step.a)
    content.strays = 0.0 if content.strays else 0.3


async def flip(machine: Machine, step: Step) -> None:
    """Bits of a drive's volumes change."""
    life = cast(Life, machine)
    for _, disk in sorted(one(machine, step.a).files.items()):
        for _ in range(3):
            if disk.now:
                disk.now[life.dice.randrange(len(disk.now))] ^= 1 << life.dice.randrange(8)


async def spoil(machine: Machine, step: Step) -> None:
    """A byte of a shard that is in use changes, on an unlucky drive."""
    life = cast(Life, machine)
    if not life.is_truce:
        needles.spoil(life.fs, life.world, life.unlucky, life.dice)


async def fill(machine: Machine, step: Step) -> None:
    """Some drives, the good ones among them, take so many bytes more and then none; or all have room again."""
    life = cast(Life, machine)
    drives = [life.world.drive(number) for number in life.world.numbers()]
    if any(content.bytes_left is not None for content in drives):
        for content in drives:
            content.bytes_left = None
    else:
        for content in life.dice.sample(drives, 1 + step.a % len(drives)):
            content.bytes_left = step.b % 20_000


async def database_fails(machine: Machine, step: Step) -> None:
    """The file system under the database is full, or fails to sync; or is well again."""
    fails = cast(Life, machine).world.files.fails
    if fails:
        fails.clear()
    else:
        fails.add(["write", "sync"][step.a % 2])


async def crash_now(machine: Machine, step: Step) -> None:
    """At rest, between two steps."""
    life = cast(Life, machine)
    if life.may_crash:
        life.world.crash("kill" if step.a % 4 == 0 else "cut")
        await trio.lowlevel.checkpoint()


FAULTS: Steps = {
    "sync": (14, sync),
    "sync_beside": (6, sync_beside),
    "checkpoint": (2, checkpoint),
    "compact": (4, compact),
    "defragment": (3, defragment),
    "image": (2, image),
    "look_at_drives": (1, look_at_drives),
    "go_away": (1.5, go_away),
    "come_back": (2, come_back),
    "fall_ill": (2, fall_ill),
    "stray": (1, stray),
    "flip": (1, flip),
    "spoil": (2, spoil),
    "fill": (3, fill),
    "database_fails": (1, database_fails),
    "crash_now": (1, crash_now),
    "many_small_files": (4, many_small_files),
    "replace_by_rename": (5, replace_by_rename),
    "stream": (2, stream),
}

PLAIN: Steps = names.STEPS | attributes.STEPS | contents.STEPS | FAULTS
"""Everything that can happen to a store without jobs, and how often."""
TABLE: Steps = PLAIN | HEALING
"""Everything that can happen. Most stores have their jobs then."""
EAGER: Steps = TABLE | {name: (6 * weight, step) for name, (weight, step) in HEALING.items()}
"""As `TABLE`, and much heals, and moves."""
