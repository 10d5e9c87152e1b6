"""Steps that sync, crash, and take drives away."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable

import trio

from ciaosfs.base.errors import CiaosError
from tests.model.machine import Exit, Machine, Step, Steps
from tests.support.builders import Store
from tests.support.model_tree import Tree
from tests.support.power import Fate, copy_database


async def sync(machine: Machine, step: Step) -> None:
    handle = machine.handles[step.a % len(machine.handles)][0] if machine.handles and step.b % 2 else None
    await machine.sync_now(handle)
    if step.c % 3 == 0:
        machine.databases.append(copy_database(machine.store, machine.place / f"database{len(machine.log)}"))


async def sync_beside(machine: Machine, step: Step) -> None:
    """Goes on while the next steps are done."""
    machine.nursery.start_soon(machine.sync_now)
    await trio.lowlevel.checkpoint()


async def image(machine: Machine, step: Step) -> None:
    """An image of the metadata, and sometimes a round of collecting; the commits that they make may be what is found."""
    try:
        await machine.fs.parts.imager.write()
        if step.a % 2:
            await machine.fs.parts.collector.collect()
    except CiaosError:
        assert machine.ill or machine.store.hidden(), "all drives are well"


async def remount(machine: Machine, step: Step) -> Exit:
    return Exit.REMOUNT


async def kill(machine: Machine, step: Step) -> Exit:
    with machine.power.turn:
        machine.go_on_with(machine.store.copy(machine.next_place()))
    return Exit.CRASH


async def cut(machine: Machine, step: Step) -> Exit:
    with machine.power.turn:
        machine.go_on_with(cut_power(machine, step))
    return Exit.CRASH


async def kill_in_sync(machine: Machine, step: Step) -> Exit:
    return await crash_in_sync(machine, step, lambda: machine.store.copy(machine.next_place()))


async def cut_in_sync(machine: Machine, step: Step) -> Exit:
    return await crash_in_sync(machine, step, lambda: cut_power(machine, step))


async def crash_in_sync(machine: Machine, step: Step, crash: Callable[[], Store]) -> Exit:
    """Before one of the operations on the drives that a sync makes; after it when there are fewer."""
    left: list[Store] = []
    allowed: list[Tree] = []
    count = step.a % 16

    def strike(what: str, where: str) -> None:
        nonlocal count
        count -= 1
        if count < 0 and not left:
            allowed.extend(machine.allowed)
            left.append(crash())

    machine.strike = strike
    await machine.sync_now()
    machine.strike = lambda what, where: None
    if not left:
        left.append(crash())
        allowed = machine.allowed
    machine.allowed = allowed
    machine.go_on_with(left[0])
    return Exit.CRASH


def cut_power(machine: Machine, step: Step) -> Store:
    dice = random.Random(step.b)
    left = machine.power.cut(machine.store, machine.next_place(), dice.choice(list(Fate)), dice)
    luck = dice.random()
    if luck < 0.2:
        left.lose_database()
    elif luck < 0.6 and machine.databases:
        left.replace_database(dice.choice(machine.databases))
    return left


async def hide(machine: Machine, step: Step) -> None:
    there = [number for number in machine.unlucky if number not in machine.store.hidden()]
    if there:
        machine.store.hide(there[step.a % len(there)])
        if step.b % 3:
            await machine.fs._chunks.refresh_drives()


async def bring_back(machine: Machine, step: Step) -> None:
    away = [number for number in machine.store.hidden() if number not in machine.destroyed]
    if away:
        machine.store.bring_back(away[step.a % len(away)])
        if step.b % 3:
            await machine.fs._chunks.refresh_drives()


async def fall_ill(machine: Machine, step: Step) -> None:
    """An unlucky drive answers writes and syncs with errors, until it is well again or the store is opened anew."""
    if machine.ill:
        machine.ill.clear()
    else:
        machine.ill.add(machine.unlucky[step.a % len(machine.unlucky)])


async def destroy(machine: Machine, step: Step) -> None:
    away = [number for number in machine.store.hidden() if number not in machine.destroyed]
    if away:
        number = away[step.a % len(away)]
        machine.destroyed.add(number)
        path = machine.store.drive(number)
        shutil.rmtree(path.with_name(path.name + ".away"))


async def damage(machine: Machine, step: Step) -> None:
    """Bytes of one unlucky drive change behind our back."""
    number = machine.unlucky[step.a % len(machine.unlucky)]
    if number in machine.store.hidden():
        return
    dice = random.Random(step.b)
    for path in machine.store.volumes(number):
        size = path.stat().st_size
        with path.open("r+b") as file:
            for _ in range(4):
                file.seek(dice.randrange(max(1, size)))
                file.write(dice.randbytes(dice.randrange(1, 5000))[: max(0, size - file.tell())])


STEPS: Steps = {
    "sync": (5, sync),
    "sync_beside": (4, sync_beside),
    "image": (1.5, image),
    "remount": (1.5, remount),
    "kill": (1.5, kill),
    "cut": (1.5, cut),
    "kill_in_sync": (1, kill_in_sync),
    "cut_in_sync": (1.5, cut_in_sync),
    "hide": (1, hide),
    "bring_back": (1.5, bring_back),
    "destroy": (0.1, destroy),
    "damage": (0.7, damage),
    "fall_ill": (1.5, fall_ill),
}
