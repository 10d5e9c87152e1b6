"""What lies on the drives, compared with what the metadata says: nothing given back too early, nothing kept for ever."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from random import Random

from ciaosfs.base.types import ShardPlace
from ciaosfs.codec.needle import NeedleKind, head_bytes_for
from ciaosfs.drive.local import volume_name
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.volume.scan import scan_needles
from tests.sim.disk import PAGE_BYTES, Disk
from tests.sim.drives import SimFile
from tests.sim.world import World


async def check_everything_is_there(fs: FileSystem, world: World, unlucky: Sequence[int]) -> None:
    """Every shard of every stripe in use is whole on the drives that nothing bad happens to."""
    for stripe_id in fs._meta.stripes.ids_after(0):
        record = fs._meta.stripes.load(stripe_id)
        if record is None or not fs._meta.stripes.live_bytes(stripe_id):
            continue
        for index in await fs._chunks.damaged_shards(record):
            place = next(place for place in record.places if place.shard_index == index)
            name = volume_name(place.volume_id)
            lies_on = [number for number in world.numbers() if name in world.drive(number).files]
            assert lies_on and lies_on[0] in unlucky, (
                f"shard {index} of stripe {stripe_id} is gone or torn, in volume {name} of drive {lies_on}"
            )


def spoil(fs: FileSystem, world: World, unlucky: Sequence[int], dice: Random) -> None:
    """Change one byte of the payload of some shard that is in use, on one of the unlucky drives."""
    ids = fs._meta.stripes.ids_after(0)
    record = fs._meta.stripes.load(dice.choice(ids)) if ids else None
    for place in () if record is None else record.places:
        volume = fs._meta.volumes.load(place.volume_id)
        if volume is None or volume.drive not in unlucky:
            continue
        disk = world.drive(volume.drive).files.get(volume_name(place.volume_id))
        assert record is not None
        at = place.offset + head_bytes_for(record.shard_bytes) + dice.randrange(record.shard_bytes)
        if disk is not None and at < len(disk.now):
            disk.now[at] ^= 1 << dice.randrange(8)
            return


def check_nothing_leaked(fs: FileSystem, world: World, first_stripe: int, unlucky: Collection[int]) -> None:
    """With everything synced and at rest, no needle of this life is left that nobody refers to.

    Those of lives before are not looked at: what a crash left half written is dead space until its volume is collected.
    """
    used: set[tuple[int, int]] = set()
    for stripe_id in fs._meta.stripes.ids_after(0):
        record = fs._meta.stripes.load(stripe_id)
        assert record is not None
        used |= {_key(place) for place in record.places}
    for number in world.numbers():
        if number in unlucky:
            continue
        content = world.drive(number)
        for name, disk in content.files.items():
            volume_id = int(name.partition(".")[0], 16)
            assert name == volume_name(volume_id)
            file = SimFile(disk, content, world, f"{number}/{name}")
            for head in scan_needles(file, world.config.store_id, volume_id):
                if head.kind is not NeedleKind.SHARD or head.stripe_id < first_stripe:
                    continue
                if (volume_id, head.offset) not in used and holds_pages(disk, head.offset, head.needle_bytes):
                    raise AssertionError(
                        f"stripe {head.stripe_id} is dead and its needle of {head.needle_bytes} bytes "
                        f"is still at {head.offset} in volume {volume_id:016x} of drive {number}"
                    )


def is_of_dead(fs: FileSystem, problem: str) -> bool:
    """Whether a check tells of a dead stripe: a power cut may have torn it with its commit, and it only waits to be
    given back."""
    stripe = re.search(r"[Ss]tripe (\d+)", problem)
    return stripe is not None and fs._meta.stripes.live_bytes(int(stripe[1])) == 0


def _key(place: ShardPlace) -> tuple[int, int]:
    return place.volume_id, place.offset


def holds_pages(disk: Disk, offset: int, length: int) -> bool:
    """Whether a range still holds whole pages that could be given back."""
    start = -(-offset // PAGE_BYTES) * PAGE_BYTES
    end = (offset + length) // PAGE_BYTES * PAGE_BYTES
    return start < end and any(disk.now[start:end])
