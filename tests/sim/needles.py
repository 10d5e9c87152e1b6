"""What lies on the drives, compared with what the metadata says: nothing given back too early, nothing kept for ever."""

from __future__ import annotations

from collections.abc import Sequence

from ciaosfs.base.types import ShardPlace
from ciaosfs.codec.needle import NeedleKind
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
            lies_on = [
                number for number, uuid in enumerate(world.uuids) if name in world.content_of(uuid).files
            ]
            assert lies_on and lies_on[0] in unlucky, (
                f"shard {index} of stripe {stripe_id} is gone or torn, in volume {name} of drive {lies_on}"
            )


def check_nothing_leaked(fs: FileSystem, world: World, first_stripe: int, unlucky: Sequence[int]) -> None:
    """With everything synced and at rest, no needle of this life is left that nobody refers to.

    Those of lives before are not looked at: what a crash left half written is dead space until its volume is collected.
    """
    used: set[tuple[int, int]] = set()
    for stripe_id in fs._meta.stripes.ids_after(0):
        record = fs._meta.stripes.load(stripe_id)
        assert record is not None
        used |= {_key(place) for place in record.places}
    for number, uuid in enumerate(world.uuids):
        if number in unlucky:
            continue
        content = world.content_of(uuid)
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


def _key(place: ShardPlace) -> tuple[int, int]:
    return place.volume_id, place.offset


def holds_pages(disk: Disk, offset: int, length: int) -> bool:
    """Whether a range still holds whole pages that could be given back."""
    start = -(-offset // PAGE_BYTES) * PAGE_BYTES
    end = (offset + length) // PAGE_BYTES * PAGE_BYTES
    return start < end and any(disk.now[start:end])
