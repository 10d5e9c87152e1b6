"""Which shards are in a volume, by what their heads say; for whoever looks for garbage."""

from __future__ import annotations

from ciaosfs.base.types import ShardPlace, StripeRecord
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.volume.files import VolumeFiles
from ciaosfs.volume.scan import scan_needles


def list_shards(files: VolumeFiles, volume_id: int, id_below: int) -> list[StripeRecord]:
    """The shards in a volume, by offset, each as its stripe with that one place. Blocking; payloads are not read.

    Only of stripes with ids below `id_below`. Raises DriveGoneError, StoreError, OSError.
    """
    found = []
    with files.reading(volume_id) as (_, file):
        for head in scan_needles(file, files.store_id, volume_id):
            if head.kind is not NeedleKind.SHARD or head.stripe_kind is None or head.stripe_id >= id_below:
                continue
            place = ShardPlace(head.shard_index, volume_id, head.offset)
            found.append(
                StripeRecord(
                    head.stripe_id,
                    head.stripe_kind,
                    head.data_count,
                    head.parity_count,
                    head.payload_bytes,
                    head.shard_bytes,
                    (place,),
                )
            )
    return found
