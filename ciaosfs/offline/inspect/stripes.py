"""A stripe: its record, the state of each shard, and whose bytes are in it. Without a database, what the drives hold."""

from __future__ import annotations

import os

from ciaosfs.base.errors import CiaosError, LogDamagedError, ShardDamagedError, StoreError
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.drive.local import volume_name
from ciaosfs.meta import records
from ciaosfs.meta.reader import Reader
from ciaosfs.meta.reports import paths_of
from ciaosfs.offline.inspect.stock import Facts, Stock, shown_id
from ciaosfs.volume.reader import read_head, read_range
from ciaosfs.volume.scan import read_payload, scan_needles


def stripe(stock: Stock, stripe_id: int, limit: int) -> Facts:
    """One stripe, with up to `limit` extents and the paths of their files. StoreError when nothing is known of it."""
    if stock.reader is not None:
        try:
            return _by_metadata(stock, stock.reader, stripe_id, limit)
        except LogDamagedError as error:
            stock.database_trouble = error.message
    return _by_search(stock, stripe_id)


def _by_metadata(stock: Stock, reader: Reader, stripe_id: int, limit: int) -> Facts:
    record = records.row(reader, "stripes", stripe_id)
    if record is None:
        raise StoreError(f"The metadata knows no stripe {stripe_id}.")
    shards = [_shard(stock, record, place) for place in records.places_of(reader, stripe_id)]
    good = sum(shard["state"] == "good" for shard in shards)
    extents = records.extents_of(reader, stripe_id, limit)
    paths = paths_of(reader, {extent["ino"] for extent in extents})
    return {
        **record,
        "readable": good >= record["data_count"],
        "shards": shards,
        "extents": extents,
        "files": [
            {"ino": ino, "path": os.fsdecode(path)} for ino, found in sorted(paths.items()) for path in found
        ],
    }


def _shard(stock: Stock, record: Facts, place: Facts) -> Facts:
    """One shard: good, or why not."""
    shown = {**place, "volume": shown_id(place["volume"])}
    if place["drive"] in stock.drive_trouble:
        return {**shown, "state": "away", "reason": stock.drive_trouble[place["drive"]]}
    try:
        with stock.opened(place["volume"]) as (_, file):
            head = read_head(
                file,
                stock.config.store_id,
                place["volume"],
                place["offset"],
                record["shard_bytes"],
                kind=NeedleKind.SHARD,
                stripe_id=record["stripe"],
                shard_index=place["shard"],
            )
            if head.shard_bytes:
                read_range(file, head, 0, head.shard_bytes)
    except (CiaosError, OSError) as error:
        return {**shown, "state": "damaged", "reason": str(error)}
    return {**shown, "state": "good", "reason": ""}


def _by_search(stock: Stock, stripe_id: int) -> Facts:
    """Look at every needle of every drive."""
    shards: list[Facts] = []
    counts: set[str] = set()
    for drive in stock.drives.values():
        for volume_id in stock.volumes(drive):
            file = drive.open(volume_name(volume_id))
            try:
                for head in scan_needles(file, stock.config.store_id, volume_id):
                    if head.kind is not NeedleKind.SHARD or head.stripe_id != stripe_id:
                        continue
                    counts.add(f"{head.data_count}+{head.parity_count} shards of {head.shard_bytes} bytes")
                    try:
                        read_payload(file, head)
                        state, reason = "good", ""
                    except ShardDamagedError as error:
                        state, reason = "damaged", str(error)
                    shards.append(
                        {
                            "shard": head.shard_index,
                            "volume": shown_id(volume_id),
                            "offset": head.offset,
                            "drive": drive.number,
                            "state": state,
                            "reason": reason,
                        }
                    )
            finally:
                file.close()
    if not shards:
        raise StoreError(
            f"No drive that is there has a needle of stripe {stripe_id}. {stock.database_trouble}".strip()
        )
    shards.sort(key=lambda shard: (shard["shard"], shard["volume"], shard["offset"]))
    return {
        "stripe": stripe_id,
        "form": sorted(counts),
        "found_by": "a search of all needles",
        "shards": shards,
    }
