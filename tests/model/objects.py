"""Steps that make a file without a name, and give it one or give it up."""

from __future__ import annotations

import errno
import stat

from ciaosfs.fs.unnamed import Naming
from ciaosfs.meta.inodes import Inode
from tests.model.contents import some_data
from tests.model.machine import MODES, Machine, Step, Steps
from tests.model.names import left
from tests.support.builders import WHO, put_unnamed
from tests.support.model_fs import ModelError


async def publish(machine: Machine, step: Step) -> None:
    """As a put or an update of an object; refused, it is given up."""
    parent, name = machine.existing(step)
    permissions = MODES[step.c % len(MODES)] & 0o777
    data = some_data(step.c, step.d)
    former = machine.model.nodes[parent].entries.get(name) if step.d % 8 else None
    naming = Naming(None if former is None else machine.real[former], permissions)
    fh = await put_unnamed(machine.fs, data)

    def model() -> int:
        if former is not None:
            check_replaceable(machine, parent, former)
            machine.model.unlink(parent, name)
        number = machine.model.create(parent, name, stat.S_IFREG | permissions, WHO.uid, WHO.gid)
        machine.model.write(number, 0, data)
        return number

    async def real() -> Inode:
        return (await machine.fs.publish(fh, machine.real[parent], name, naming))[0]

    made = await machine.both(model, real)
    if made is None:
        machine.fs.give_up(fh)
        return
    number, inode = made
    assert isinstance(number, int) and isinstance(inode, Inode)
    machine.real[number] = inode.ino
    machine.touched.add(number)
    machine.fs.release(fh)
    left(machine, former, step.a)


def check_replaceable(machine: Machine, parent: int, former: int) -> None:
    machine.model.directory(parent)
    mode = machine.model.nodes[former].mode
    if not stat.S_ISREG(mode):
        raise ModelError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL)


async def give_up(machine: Machine, step: Step) -> None:
    """Perhaps with bytes on their way to the drives, or there."""
    fh = await put_unnamed(machine.fs, some_data(step.c, step.d))
    if step.a % 3 == 0:
        machine.fs._flusher.launch_all()
    if step.a % 5 == 0:
        await machine.sync_now()
    machine.fs.give_up(fh)


STEPS: Steps = {"publish": (6, publish), "give_up": (2, give_up)}
