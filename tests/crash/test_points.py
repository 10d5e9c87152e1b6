"""A power cut and a kill at every named crash point: nothing is lost, and what was begun is finished by the next mount.

`DRIVERS` has, for each prefix of `crashpoints.POINTS`, what makes that job run on a small store with some files. A new
prefix needs one.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
import trio

from ciaosfs.base.crashpoints import POINTS
from ciaosfs.fs.merge import EXTENTS_MAX
from ciaosfs.fs.unnamed import Naming
from ciaosfs.jobs.drain import submit_drain
from ciaosfs.meta import reports
from ciaosfs.meta.inodes import ROOT_INO
from tests.sim.scene import Driver, Scene, crash_at
from tests.support.builders import put, put_unnamed, remove


async def compact(scene: Scene) -> None:
    """What is live in the stripes of files is copied into fresh ones."""
    await merge(scene, "compact")


async def pack(scene: Scene) -> None:
    """As compaction, for another reason."""
    await merge(scene, "pack")


async def merge(scene: Scene, job: str) -> None:
    for stripe_id in scene.fs._meta.stripes.ids_after(0):
        await scene.fs.parts.compactor._merger.merge([stripe_id], job)
    await scene.fs.sync()


async def defragment(scene: Scene) -> None:
    """Every piece of a file is copied, from what another reader of the database sees of it."""
    with scene.fs._meta.reader() as reader:
        rows = reports.extents_after(reader, 0, 0, EXTENTS_MAX)
    for row in rows:
        assert await scene.fs.parts.compactor._merger.move([row], "defragment")
    await scene.fs.sync()


async def repair(scene: Scene) -> None:
    """One shard of every stripe is written anew, and the old one given back."""
    meta = scene.fs._meta
    for stripe_id in meta.stripes.ids_after(0):
        await scene.fs.parts.mender.mend(stripe_id, [1])
    await scene.fs.sync()
    await scene.fs._reclaimer.wait_discarded()


async def add(scene: Scene) -> None:
    await scene.jobs.drives.add(scene.world.path / "drives" / "new")


async def replace(scene: Scene) -> None:
    await scene.jobs.drives.replace(1, scene.world.path / "drives" / "new")
    await submit_drain(scene.jobs.runner, 1)
    await scene.jobs_done()


async def drain(scene: Scene) -> None:
    """A drive is emptied and let go."""
    await scene.jobs.drives.begin_removal(1)
    await submit_drain(scene.jobs.runner, 1)
    await scene.jobs_done()


async def image(scene: Scene) -> None:
    await scene.fs.parts.imager.write()


async def collect(scene: Scene) -> None:
    """Two images are kept, so the log before them is not needed; what a killed process left is found and judged."""
    for number in range(3):
        await put(scene.fs, b"unseen", b"%d" % number)
        await remove(scene.fs, b"unseen")
        await scene.fs.parts.imager.write()
    await trio.sleep(600)


async def publish(scene: Scene) -> None:
    """A file without a name, durable as far as it is, takes the name of another one."""
    name = min(scene.expected)
    fh = await put_unnamed(scene.fs, b"new" * 100_000)
    await scene.fs.sync()
    former = scene.fs.lookup(ROOT_INO, name)
    assert former is not None
    await scene.fs.publish(fh, ROOT_INO, name, Naming(former.ino))


DRIVERS: dict[str, Driver] = {
    "compact": compact,
    "pack": pack,
    "defragment": defragment,
    "repair": repair,
    "add": add,
    "replace": replace,
    "drain": drain,
    "image": image,
    "collect": collect,
    "publish": publish,
}


def driver_of(point: str) -> Driver:
    prefix = point.partition(".")[0]
    assert prefix in DRIVERS, (
        f"crashpoints.POINTS has {point!r} and nothing here makes {prefix!r} run: write an async function that takes "
        f"a Scene (an open store with files, and its jobs), does what reaches every {prefix}.* point, and add it "
        f"to DRIVERS in {Path(__file__).name} under {prefix!r}"
    )
    return DRIVERS[prefix]


@pytest.mark.parametrize("kind", ["cut", "kill"])
@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at(point: str, kind: str, tmp_path: Path) -> None:
    driver = driver_of(point)
    crash_at(point, driver, kind, tmp_path, zlib.crc32(point.encode()))


def test_a_point_without_a_driver_is_said_to_lack_one() -> None:
    with pytest.raises(AssertionError, match="nothing here makes 'polish' run: write an async function"):
        driver_of("polish.begun")
    assert DRIVERS.keys() == {point.partition(".")[0] for point in POINTS}, "a driver is left over"


def test_a_point_that_is_not_reached_fails(tmp_path: Path) -> None:
    async def idle(scene: Scene) -> None:
        await scene.fs.sync()

    with pytest.raises(AssertionError, match=r"compact\.read was not reached"):
        crash_at("compact.read", idle, "cut", tmp_path, 1)
