"""A volume with the list of its needles, and one needle with its blocks."""

from __future__ import annotations

from collections.abc import Iterator

from ciaosfs.base.errors import CiaosError, LogDamagedError, ShardDamagedError
from ciaosfs.base.limits import CHECK_BLOCK_BYTES, NEEDLE_ALIGN_LARGE, VOLUME_SUPERBLOCK_BYTES
from ciaosfs.codec.checksum import verify_blocks
from ciaosfs.codec.needle import (
    FIXED_HEAD_BYTES,
    NeedleHead,
    NeedleKind,
    decode_head,
    head_bytes_needed,
)
from ciaosfs.codec.superblock import decode_superblock
from ciaosfs.drive.interface import DriveFile
from ciaosfs.meta import records
from ciaosfs.meta.placements import placements_in
from ciaosfs.offline.inspect.stock import Facts, Stock, shown_id, shown_uuid
from ciaosfs.volume.scan import read_payload, scan_needles


def volume(stock: Stock, volume_id: int, after: int, limit: int) -> Facts:
    """A volume: its superblock, what the metadata says of it, and up to `limit` needles from offset `after` on.

    States of a needle: *live* (the metadata means it), *dead* (nothing does), *commit*, *image*, *torn* (its payload fails
    its checksums), *unknown* (there is no database to ask), *missing* (the metadata means one that is not there).
    """
    with stock.opened(volume_id) as (drive, file):
        facts: Facts = {
            "volume": shown_id(volume_id),
            "drive": drive.number,
            "path": drive.path,
            "bytes": file.size(),
            "superblock": _superblock(file, stock, volume_id),
            "metadata": _row_of(stock, volume_id),
        }
        needles: list[Facts] = []
        facts["next"] = None
        for needle in _needles(stock, file, volume_id):
            if needle["offset"] < after:
                continue
            if len(needles) == limit:
                facts["next"] = needle["offset"]
                break
            needles.append(needle)
        facts["needles"] = needles
        return facts


def needle(stock: Stock, volume_id: int, offset: int) -> Facts:
    """One needle: everything its head says, its state, and which of its blocks are bad."""
    facts: Facts = {"volume": shown_id(volume_id), "offset": offset}
    with stock.opened(volume_id) as (drive, file):
        facts["drive"] = drive.number
        try:
            head = _head_at(file, stock.config.store_id, volume_id, offset)
        except ShardDamagedError as error:
            start = file.read(offset, FIXED_HEAD_BYTES)
            return {**facts, "state": "no needle", "reason": str(error), "bytes_there": bytes(start).hex()}
        bad = _bad_blocks(file, head)
        return {
            **facts,
            **_named(head),
            "parts": f"{head.data_count}+{head.parity_count}",
            "store": shown_uuid(head.store_id),
            "stripe_payload_bytes": head.payload_bytes,
            "payload_starts": offset + head.payload_start,
            "needle_bytes": head.needle_bytes,
            "state": _state(stock, head) if not bad else "torn",
            "blocks": -(-head.shard_bytes // CHECK_BLOCK_BYTES),
            "bad_blocks": bad,
        }


def _superblock(file: DriveFile, stock: Stock, volume_id: int) -> Facts:
    try:
        found = decode_superblock(
            file.read(0, VOLUME_SUPERBLOCK_BYTES), store_id=stock.config.store_id, volume_id=volume_id
        )
    except CiaosError as error:
        return {"damaged": error.message}
    return {
        "kind": found.kind.name.lower(),
        "drive": found.drive_number,
        "drive_uuid": shown_uuid(found.drive_uuid),
        "created_ns": found.created_ns,
    }


def _row_of(stock: Stock, volume_id: int) -> Facts:
    if stock.reader is None:
        return {"damaged": stock.database_trouble}
    try:
        found = records.row(stock.reader, "volumes", volume_id)
    except LogDamagedError as error:
        return {"damaged": error.message}
    return (
        {"unknown": "The metadata has no row of it."}
        if found is None
        else {**found, "volume": shown_id(volume_id)}
    )


def _needles(stock: Stock, file: DriveFile, volume_id: int) -> Iterator[Facts]:
    """What lies in the volume, by offset, with what should lie there and does not."""
    wanted = _wanted(stock, volume_id)
    at = VOLUME_SUPERBLOCK_BYTES
    for head in scan_needles(file, stock.config.store_id, volume_id):
        while wanted and wanted[0]["offset"] < head.offset:
            yield wanted.pop(0)
        if wanted and wanted[0]["offset"] == head.offset:
            wanted.pop(0)
        if head.offset - at >= NEEDLE_ALIGN_LARGE:
            yield {"offset": at, "kind": "-", "state": "no needle", "bytes": head.offset - at}
        at = head.offset + head.needle_bytes
        try:
            read_payload(file, head)
            state = _state(stock, head)
        except ShardDamagedError:
            state = "torn"
        yield {"offset": head.offset, **_named(head), "state": state, "bytes": head.shard_bytes}
    yield from wanted


def _wanted(stock: Stock, volume_id: int) -> list[Facts]:
    """The needles the metadata means in this volume, as they are shown when they are not there."""
    if stock.reader is None:
        return []
    try:
        return [
            {
                "offset": shard.offset,
                "kind": "shard",
                "stripe": shard.stripe_id,
                "shard": shard.shard_index,
                "state": "missing",
                "bytes": shard.shard_bytes,
            }
            for shard in placements_in(stock.reader, volume_id)
        ]
    except LogDamagedError:
        return []


def _head_at(file: DriveFile, store_id: bytes, volume_id: int, offset: int) -> NeedleHead:
    wanted = head_bytes_needed(file.read(offset, FIXED_HEAD_BYTES))
    return decode_head(file.read(offset, wanted), store_id=store_id, volume_id=volume_id, offset=offset)


def _named(head: NeedleHead) -> Facts:
    """What kind of needle, and whose."""
    if head.kind is NeedleKind.SHARD:
        return {"kind": "shard", "stripe": head.stripe_id, "shard": head.shard_index}
    kind = "commit" if head.kind is NeedleKind.COMMIT else "image"
    return {"kind": kind, "sequence": head.stripe_id, "shard": head.shard_index}


def _state(stock: Stock, head: NeedleHead) -> str:
    if head.kind is not NeedleKind.SHARD:
        return "commit" if head.kind is NeedleKind.COMMIT else "image"
    if stock.reader is None:
        return "unknown"
    try:
        is_live = records.is_live(stock.reader, head.stripe_id, head.shard_index, head.volume_id, head.offset)
    except LogDamagedError:
        return "unknown"
    return "live" if is_live else "dead"


def _bad_blocks(file: DriveFile, head: NeedleHead) -> list[int]:
    """The blocks of a needle that fail their checksums, or lie beyond the end of the file."""
    bad = []
    for start in range(0, head.shard_bytes, CHECK_BLOCK_BYTES):
        length = min(CHECK_BLOCK_BYTES, head.shard_bytes - start)
        data = file.read(head.offset + head.payload_start + start, length)
        block = start // CHECK_BLOCK_BYTES
        if (
            len(data) != length
            or verify_blocks(data, head.sums, block, head.stripe_id, head.shard_index) is not None
        ):
            bad.append(block)
    return bad
