"""Filled stores for the tests of checks, and ways to harm them."""

from __future__ import annotations

import random
from pathlib import Path

from ciaosfs.checking.findings import Findings
from ciaosfs.drive.local import volume_name
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.meta.placements import Placement, placements
from ciaosfs.meta.reader import Reader
from ciaosfs.offline.check import check_closed
from tests.support.builders import Store, put, remove

LARGE = 700_000


async def fill(filesystem: FileSystem) -> None:
    """Files in coded and in replicated stripes, some of them deleted again, in several commits."""
    dice = random.Random(1)
    for number in range(3):
        await put(filesystem, b"large%d" % number, dice.randbytes(LARGE))
        await filesystem.sync()
        await put(filesystem, b"small%d" % number, dice.randbytes(3000))
        await filesystem.sync()
    await remove(filesystem, b"large0")
    await remove(filesystem, b"small0")
    await filesystem.sync()


async def closed(store: Store, *, data: bool = False) -> Findings:
    async with Workers() as workers:
        return await check_closed(store.config, workers, data=data)


def shards(store: Store) -> list[Placement]:
    with Reader(store.database) as reader:
        return list(placements(reader))


def file_of(store: Store, shard: Placement) -> Path:
    assert shard.drive is not None
    return store.drive(shard.drive) / "volumes" / volume_name(shard.volume_id)


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
