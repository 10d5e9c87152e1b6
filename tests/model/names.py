"""Steps that make, move and remove names."""

from __future__ import annotations

import errno
import os
import stat

from ciaosfs.base import limits
from ciaosfs.base.errors import FsError
from ciaosfs.meta.inodes import Inode
from tests.model.machine import MODES, Machine, Step, Steps
from tests.support.builders import WHO
from tests.support.model_fs import EXCHANGE, NOREPLACE


async def create_node(
    machine: Machine, step: Step, mode: int, rdev: int = 0, target: bytes | None = None
) -> None:
    parent, name = machine.directory(step.a), machine.name(step.b)
    real_parent = machine.real[parent]

    async def real() -> Inode:
        if target is not None:
            return await machine.fs.symlink(real_parent, name, target, WHO)
        return await machine.fs.mknod(real_parent, name, mode, rdev, WHO)

    made = await machine.both(
        lambda: machine.model.create(parent, name, mode, WHO.uid, WHO.gid, rdev=rdev, target=target), real
    )
    if made is not None:
        note_made(machine, made)


def note_made(machine: Machine, made: tuple[object, object]) -> None:
    number, inode = made
    assert isinstance(number, int) and isinstance(inode, Inode)
    assert inode.ino not in machine.real.values()
    machine.real[number] = inode.ino


async def create(machine: Machine, step: Step) -> None:
    parent, name = machine.directory(step.a), machine.name(step.b)
    mode = stat.S_IFREG | MODES[step.c % len(MODES)]
    made = await machine.both(
        lambda: machine.model.create(parent, name, mode, WHO.uid, WHO.gid),
        lambda: machine.fs.create(machine.real[parent], name, mode, os.O_RDWR, WHO),
    )
    if made is not None:
        number, opened = made
        assert isinstance(number, int) and isinstance(opened, tuple)
        fh, inode = opened
        note_made(machine, (number, inode))
        machine.model.open(number)
        machine.handles.append((fh, number))


async def mknod(machine: Machine, step: Step) -> None:
    kind = [stat.S_IFREG, stat.S_IFREG, stat.S_IFIFO, stat.S_IFCHR][step.d % 4]
    rdev = os.makedev(1, step.c % 9) if kind == stat.S_IFCHR else 0
    await create_node(machine, step, kind | MODES[step.c % len(MODES)], rdev)


async def mkdir(machine: Machine, step: Step) -> None:
    await create_node(machine, step, stat.S_IFDIR | MODES[step.c % len(MODES)])


async def symlink(machine: Machine, step: Step) -> None:
    target = b"t" * (4096 if step.c % 20 == 0 else 1 + step.c % 300)
    await create_node(machine, step, stat.S_IFLNK | 0o777, target=target)


async def link(machine: Machine, step: Step) -> None:
    number, parent, name = machine.any(step.c), machine.directory(step.a), machine.name(step.b)
    if machine.model.nodes[number].nlink == 0:
        return  # only /proc/self/fd leads there, and the kernel refuses
    await machine.both(
        lambda: machine.model.link(number, parent, name),
        lambda: machine.fs.link(machine.real[number], machine.real[parent], name),
    )


async def unlink(machine: Machine, step: Step) -> None:
    parent, name = machine.existing(step)
    victim = machine.model.nodes[parent].entries.get(name)
    done = await machine.both(
        lambda: machine.model.unlink(parent, name), lambda: machine.fs.unlink(machine.real[parent], name)
    )
    if done is not None:
        left(machine, victim, step.c)


async def rmdir(machine: Machine, step: Step) -> None:
    parent, name = machine.existing(step)
    victim = machine.model.nodes[parent].entries.get(name)
    done = await machine.both(
        lambda: machine.model.rmdir(parent, name), lambda: machine.fs.rmdir(machine.real[parent], name)
    )
    if done is not None:
        left(machine, victim, step.c)


async def rename(machine: Machine, step: Step) -> None:
    parent, name = machine.existing(step)
    new_parent = machine.directory(step.c)
    flags = [0, 0, 0, NOREPLACE, EXCHANGE, NOREPLACE | EXCHANGE if step.d % 20 == 0 else 0][step.d % 6]
    names = sorted(machine.model.nodes[new_parent].entries)
    new_name = names[step.d % len(names)] if names and step.d % 2 else machine.name(step.d)
    if is_loop(machine, parent, name, new_parent) or is_loop(machine, new_parent, new_name, parent):
        return  # the kernel refuses by itself
    victim = None if flags else machine.model.nodes[new_parent].entries.get(new_name)
    done = await machine.both(
        lambda: machine.model.rename(parent, name, new_parent, new_name, flags),
        lambda: machine.fs.rename(machine.real[parent], name, machine.real[new_parent], new_name, flags),
    )
    if done is not None:
        left(machine, victim, step.b)


def is_loop(machine: Machine, parent: int, name: bytes, into: int) -> bool:
    moved = machine.model.nodes[parent].entries.get(name)
    return moved is not None and machine.model.is_below(into, moved)


def left(machine: Machine, number: int | None, choice: int) -> None:
    """The kernel forgets what has no name: at once, or later, or not before the crash."""
    if number is not None and machine.model.nodes[number].nlink == 0:
        machine.unforgotten.append(number)
        if choice % 3:
            machine.forget_one(number)


async def look(machine: Machine, step: Step) -> None:
    parent, name = machine.directory(step.a), machine.name(step.b)
    node = machine.model.nodes[parent]
    try:
        found = machine.fs.lookup(machine.real[parent], name)
    except FsError as error:
        assert error.errno == errno.ENAMETOOLONG and len(name) > limits.NAME_BYTES_MAX
        return
    expected = node.entries.get(name)
    assert (None if found is None else found.ino) == (None if expected is None else machine.real[expected])


async def forget(machine: Machine, step: Step) -> None:
    for number in list(machine.unforgotten):
        machine.forget_one(number)


STEPS: Steps = {
    "create": (10, create),
    "mknod": (4, mknod),
    "mkdir": (7, mkdir),
    "symlink": (3, symlink),
    "link": (5, link),
    "unlink": (8, unlink),
    "rmdir": (5, rmdir),
    "rename": (10, rename),
    "look": (2, look),
    "forget": (3, forget),
}
