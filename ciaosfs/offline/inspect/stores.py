"""The store as a whole: the state of its metadata, and one drive with its volumes."""

from __future__ import annotations

from ciaosfs.base.errors import CiaosError, LogDamagedError, UsageError
from ciaosfs.drive.local import volume_name
from ciaosfs.fs.boot import database_path
from ciaosfs.meta import records
from ciaosfs.meta.images import kept_images
from ciaosfs.meta.state import read_state
from ciaosfs.offline.inspect.commits import newest_sequence
from ciaosfs.offline.inspect.stock import Facts, Stock, shown_id, shown_uuid


def state(stock: Stock) -> Facts:
    """What the store is, the commit its database is at, the sums that are kept, and the newest commit on the drives."""
    config = stock.config
    facts: Facts = {
        "store": shown_uuid(config.store_id),
        "path": str(config.path),
        "parts": f"{config.data_count}+{config.parity_count}",
        "drives": len(config.drives),
        "database": str(database_path(config.path)),
        "newest_commit_on_drives": newest_sequence(stock),
    }
    if stock.reader is not None:
        try:
            broken = stock.reader.quick_check()
            if broken:
                raise LogDamagedError(f"The metadata database is damaged: {broken[0]}.")
            found = read_state(stock.reader)
            if found is not None:
                facts["state"] = {
                    **found._asdict(),
                    "store_id": shown_uuid(found.store_id),
                    "name_seed": "secret",
                    "parent_id": shown_id(found.parent_id),
                    "commit_id": shown_id(found.commit_id),
                    "log_volume_min": shown_id(found.log_volume_min),
                }
            facts["images"] = [
                {
                    **image._asdict(),
                    "log_volume_min": shown_id(image.log_volume_min),
                }
                for image in kept_images(stock.reader)
            ]
            facts["counters"] = records.counters_of(stock.reader)
        except LogDamagedError as error:
            facts["damaged"] = error.message
    return facts


def drive(stock: Stock, number: int, after: int, limit: int) -> Facts:
    """One drive: what the configuration, its identity file and the metadata say, and its volumes with ids above `after`."""
    config = next((one for one in stock.config.drives if one.number == number), None)
    if config is None:
        numbers = ", ".join(str(one.number) for one in stock.config.drives)
        raise UsageError(f"The store has no drive {number}; it has {numbers}.")
    facts: Facts = {"drive": number, "path": str(config.path), "uuid": shown_uuid(config.uuid)}
    known: dict[int, Facts] = {}
    if stock.reader is not None:
        try:
            row = records.row(stock.reader, "drives", number)
            facts["metadata"] = None if row is None else {**row, "uuid": shown_uuid(row["uuid"])}
            known = records.volumes_on(stock.reader, number)
        except LogDamagedError as error:
            facts["damaged"] = error.message
    opened = stock.drives.get(number)
    if opened is None:
        facts["state"] = stock.drive_trouble.get(number, "away")
        there: list[int] = []
    else:
        free = opened.free()
        facts |= {"state": "there", "free": free.free_bytes, "total": free.total_bytes}
        there = stock.volumes(opened)
    every = [volume_id for volume_id in sorted({*there, *known}) if volume_id > after]
    facts["volumes"] = [
        {
            "volume": shown_id(volume_id),
            "bytes": _size(stock, number, volume_id) if volume_id in there else None,
            **known.get(volume_id, {"kind": None, "state": "unknown to the metadata", "shards": 0}),
        }
        for volume_id in every[:limit]
    ]
    facts["next"] = shown_id(every[limit - 1]) if len(every) > limit else None
    return facts


def _size(stock: Stock, number: int, volume_id: int) -> int | None:
    try:
        file = stock.drives[number].open(volume_name(volume_id))
    except (CiaosError, OSError):
        return None
    try:
        return file.size()
    finally:
        file.close()
