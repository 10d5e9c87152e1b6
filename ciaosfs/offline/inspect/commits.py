"""A commit of the drives' log: its header, where its copies lie, and what it changed, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ciaosfs.base.errors import CiaosError, LogDamagedError, ShardDamagedError, StoreError
from ciaosfs.base.limits import VOLUME_SUPERBLOCK_BYTES
from ciaosfs.base.types import VolumeKind
from ciaosfs.codec.needle import NeedleHead, NeedleKind
from ciaosfs.codec.superblock import decode_superblock
from ciaosfs.drive.interface import DriveFile
from ciaosfs.drive.local import volume_name
from ciaosfs.meta.commitlog import CommitRecord, decode_commit
from ciaosfs.meta.records import changes_of
from ciaosfs.offline.inspect.stock import Facts, Stock, shown_id, shown_uuid
from ciaosfs.volume.scan import read_payload, scan_needles


def commit(stock: Stock, sequence: int, limit: int) -> Facts:
    """Every commit with this number (a forgotten one may share it), with up to `limit` of its changes.

    StoreError when no drive that is there has one.
    """
    copies: dict[CommitRecord, list[Facts]] = {}
    damaged: list[Facts] = []
    for place, file, head in _log_needles(stock):
        if head.kind is not NeedleKind.COMMIT or head.stripe_id != sequence:
            continue
        try:
            copies.setdefault(decode_commit(read_payload(file, head)), []).append(place)
        except (ShardDamagedError, LogDamagedError) as error:
            damaged.append({**place, "reason": str(error)})
    if not copies and not damaged:
        raise StoreError(f"No drive that is there has commit {sequence}.")
    ordered = sorted(copies, key=lambda record: (record.epoch, record.time_ns))
    return {
        "sequence": sequence,
        "commits": [_facts(record, copies[record], limit) for record in ordered],
        "damaged_copies": damaged,
    }


def newest_sequence(stock: Stock) -> int:
    """The highest number of a commit on the drives that are there; 0 without any."""
    return max(
        (head.stripe_id for _, _, head in _log_needles(stock) if head.kind is NeedleKind.COMMIT), default=0
    )


def _facts(record: CommitRecord, copies: list[Facts], limit: int) -> Facts:
    facts: Facts = {
        "epoch": record.epoch,
        "commit_id": shown_id(record.commit_id),
        "parent_id": shown_id(record.parent_id),
        "time_ns": record.time_ns,
        "stored_bytes": len(record.stored),
        "copies": copies,
    }
    try:
        changeset = record.changeset
        changes = list(islice(changes_of(changeset), limit + 1))
    except LogDamagedError as error:
        return {**facts, "damaged": error.message}
    return {
        **facts,
        "changeset_bytes": len(changeset),
        "changes": [_shown(change) for change in changes[:limit]],
        "more_changes": len(changes) > limit,
    }


def _shown(change: Facts) -> Facts:
    return {
        name: {key: _value(key, value) for key, value in part.items()} if isinstance(part, dict) else part
        for name, part in change.items()
    }


def _value(column: str, value: object) -> object:
    """What JSON can hold, and what may be seen: names and targets as text, with escapes for what is none."""
    if column == "name_seed":
        return "secret"
    if isinstance(value, bytes):
        return (
            shown_uuid(value) if column in ("uuid", "store_id") else value.decode("utf-8", "backslashreplace")
        )
    return shown_id(value) if column in ("volume", "log_volume_min") and isinstance(value, int) else value


def _log_needles(stock: Stock) -> Iterator[tuple[Facts, DriveFile, NeedleHead]]:
    """Every needle of every log volume; the file is open until the next one is asked for."""
    for drive in stock.drives.values():
        for volume_id in stock.volumes(drive):
            file = drive.open(volume_name(volume_id))
            try:
                if _is_log(file):
                    for head in scan_needles(file, stock.config.store_id, volume_id):
                        place = {"drive": drive.number, "volume": shown_id(volume_id), "offset": head.offset}
                        yield place, file, head
            finally:
                file.close()


def _is_log(file: DriveFile) -> bool:
    """Whether it is a log volume, or can be one, its superblock being damaged."""
    try:
        return decode_superblock(file.read(0, VOLUME_SUPERBLOCK_BYTES)).kind is VolumeKind.LOG
    except CiaosError:
        return True
