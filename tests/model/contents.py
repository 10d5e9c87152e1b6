"""Steps that open, read and write files, and let their bytes leave memory."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Awaitable, Callable

import trio

from ciaosfs.base import clock, limits
from tests.model.machine import Machine, Step, Steps
from tests.support.builders import WHO

Merge = Callable[[list[int], str], Awaitable[bool]]
Bear = Callable[[Merge], Merge]
"""What makes a call that may fail one that does not."""


async def open(machine: Machine, step: Step, truncate: bool = False) -> None:
    number = machine.file(step.a)
    if number is None:
        return
    machine.touched.add(number)
    flags = os.O_RDWR | (os.O_TRUNC if truncate else 0)
    done = await machine.both(
        lambda: machine.model.open(number, truncate=truncate),
        lambda: machine.fs.open(machine.real[number], flags, WHO),
    )
    assert done is not None and isinstance(done[1], int)
    machine.handles.append((done[1], number))


async def open_truncate(machine: Machine, step: Step) -> None:
    await open(machine, step, truncate=True)


async def release(machine: Machine, step: Step) -> None:
    if machine.handles:
        fh, number = machine.handles.pop(step.a % len(machine.handles))
        machine.release_one(fh, number)


async def write_to(machine: Machine, choice: int, place: Callable[[int], int], data: bytes) -> None:
    if not machine.handles:
        return
    fh, number = machine.handles[choice % len(machine.handles)]
    offset = min(place(machine.model.nodes[number].size), machine.file_bytes_max)
    machine.touched.add(number)
    for at in range(0, len(data), limits.MIB):
        if not await machine.write_one(fh, number, offset + at, data[at : at + limits.MIB]):
            return


async def write(machine: Machine, step: Step) -> None:
    def place(size: int) -> int:
        return [0, step.c % (size + 1), size, max(0, size - step.c % 5000), size + step.c % 9000][step.c % 5]

    await write_to(machine, step.a, place, some_data(step.b, step.d))


async def append(machine: Machine, step: Step) -> None:
    await write_to(machine, step.a, lambda size: size, some_data(step.b % 5000 * 100, step.d))


async def stream(machine: Machine, step: Step) -> None:
    data = random.Random(step.c).randbytes(4_194_304 + step.b % 1_000_000)
    await write_to(machine, step.a, lambda size: 0 if step.d % 2 else step.d % 3_000_000, data)


async def rewrite(machine: Machine, step: Step) -> None:
    """As an editor saves twice: the first content is on its way to the drives when the second replaces it."""
    start = clock.FILES.now_ns()
    await write(machine, step)
    machine.settle(start)
    machine.fs._flusher.launch_all()
    if not machine.handles:
        return
    number = machine.handles[step.a % len(machine.handles)][1]
    for fh, other in list(machine.handles):
        if other == number and step.d % 3:
            machine.handles.remove((fh, other))
            machine.release_one(fh, other)
    files = [node for node in sorted(machine.model.nodes) if stat.S_ISREG(machine.model.nodes[node].mode)]
    await open_truncate(machine, step._replace(a=files.index(number)))
    machine.settle(start)
    await write(machine, step._replace(a=len(machine.handles) - 1, b=step.c))


async def read(machine: Machine, step: Step) -> None:
    if not machine.handles:
        return
    fh, number = machine.handles[step.a % len(machine.handles)]
    expected = machine.model.nodes[number].content
    offset, size = step.b % (len(expected) + 100), 1 + step.c % 200_000
    got = machine.fs.read_nowait(fh, offset, size)
    if got is None:
        got = await machine.fs.read(fh, offset, size)
    assert bytes(got) == expected[offset : offset + size]


async def launch(machine: Machine, step: Step) -> None:
    """Dirty bytes leave now, and land while the next steps are done."""
    machine.fs._flusher.launch_all()
    if step.a % 2:
        await trio.lowlevel.checkpoint()


async def compact(machine: Machine, step: Step, bear: Bear = lambda call: call) -> None:
    """Some stripes are copied into one while the next steps are done, half dead or not."""
    meta = machine.fs._meta
    ids = meta.stripes.ids_after(0)
    chosen: list[int] = []
    room = limits.STRIPE_PAYLOAD_BYTES_MAX
    for stripe_id in random.Random(step.a).sample(ids, min(len(ids), 1 + step.b % 6)):
        room -= meta.stripes.live_bytes(stripe_id) or 0
        if room >= 0:
            chosen.append(stripe_id)
    machine.nursery.start_soon(bear(machine.fs._room._compactor._merger.merge), chosen, "compact")
    await trio.lowlevel.checkpoint()


async def rest(machine: Machine, step: Step) -> None:
    await trio.sleep([0, 0.001, 0.008, 0.02][step.a % 4])


def some_data(choice: int, seed: int) -> bytes:
    """Mostly a few bytes, sometimes more than a stripe that is replicated; half of it compresses well."""
    luck = choice % 100
    size = 300 if luck < 50 else 20_000 if luck < 85 else 300_000
    length = 1 + choice // 100 % size
    if seed % 2:
        return random.Random(seed).randbytes(length)
    word = b"%d words and more words " % seed
    return (word * (length // len(word) + 1))[:length]


STEPS: Steps = {
    "open": (6, open),
    "open_truncate": (3, open_truncate),
    "release": (6, release),
    "write": (18, write),
    "append": (6, append),
    "stream": (1, stream),
    "rewrite": (4, rewrite),
    "read": (5, read),
    "launch": (4, launch),
    "compact": (4, compact),
    "rest": (4, rest),
}
