"""Questions about the whole tree, asked by commands and not by requests. In a worker thread, of a `Reader`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, NamedTuple

from ciaosfs.base import limits
from ciaosfs.base.types import Extent, VolumeKind
from ciaosfs.codec.needle import needle_bytes_for
from ciaosfs.meta.inodes import ROOT_INO
from ciaosfs.meta.reader import Reader

_INOS: Final = "SELECT DISTINCT ino FROM extents WHERE stripe = ?"
_ALL_NAMES: Final = "SELECT parent, name, ino FROM dentries"
_PARENT: Final = "SELECT parent FROM inodes WHERE ino = ?"
_NAME: Final = "SELECT name FROM dentries WHERE parent = ? AND ino = ? LIMIT 1"
_DEPTH_MAX: Final = 8192
_HALF_DEAD: Final = (
    "SELECT stripe, live_bytes FROM stripes WHERE kind = 1 AND live_bytes > 0 AND live_bytes <= file_bytes * ?"
    " ORDER BY CAST(live_bytes AS REAL) / file_bytes LIMIT 64"
)
_SMALL: Final = (
    "SELECT stripe, live_bytes, EXISTS (SELECT 1 FROM shards JOIN volumes ON volumes.volume = shards.volume"
    f" WHERE shards.stripe = stripes.stripe AND volumes.kind = {VolumeKind.LOG:d})"
    f" FROM stripes WHERE payload_bytes <= {limits.SMALL_PAYLOAD_BYTES_MAX} AND kind = 1 AND live_bytes > 0"
    f" AND (data_count = 1 OR live_bytes <= {limits.SMALL_PAYLOAD_BYTES_MAX}) ORDER BY stripe LIMIT 4096"
)
_EXTENTS_AFTER: Final = (
    "SELECT ino, offset, length, stripe, stripe_offset, stored_length, codec, skip FROM extents"
    " WHERE (ino, offset) > (?, ?) ORDER BY ino, offset LIMIT ?"
)
_BY_MISSING: Final = (
    "SELECT missing, count(*) FROM (SELECT stripes.missing + count(volumes.volume) AS missing FROM stripes"
    " LEFT JOIN shards ON shards.stripe = stripes.stripe"
    " LEFT JOIN volumes ON volumes.volume = shards.volume AND volumes.drive IN (SELECT value FROM json_each(?))"
    " GROUP BY stripes.stripe) GROUP BY missing"
)
_ON_DRIVES: Final = (
    "SELECT volumes.drive, count(*), sum(stripes.shard_bytes) FROM volumes JOIN shards ON shards.volume = volumes.volume"
    " JOIN stripes ON stripes.stripe = shards.stripe GROUP BY volumes.drive"
)
_LAST_IN_VOLUME: Final = (
    "SELECT shard_bytes, offset FROM stripes JOIN (SELECT stripe, max(offset) AS offset FROM shards WHERE volume = ?)"
    " AS last USING (stripe)"
)


def end_in_volume(reader: Reader, volume_id: int) -> int:
    """Where the last needle that belongs to a stripe ends in the volume; 0 when there is none in it."""
    return max(
        (
            offset + needle_bytes_for(shard_bytes)
            for shard_bytes, offset in reader.rows(_LAST_IN_VOLUME, (volume_id,))
        ),
        default=0,
    )


_BESIDE: Final = (
    "SELECT there.drive, sum(stripes.shard_bytes) FROM volumes AS here JOIN shards AS own ON own.volume = here.volume"
    " JOIN stripes ON stripes.stripe = own.stripe JOIN shards AS other ON other.stripe = own.stripe"
    " JOIN volumes AS there ON there.volume = other.volume WHERE here.drive = ? GROUP BY there.drive"
)


def extents_after(reader: Reader, ino: int, offset: int, limit: int) -> list[tuple[int, Extent]]:
    """(ino, extent) of files, in that order, after the place given; at most `limit`."""
    return [(row[0], Extent(*row[1:])) for row in reader.rows(_EXTENTS_AFTER, (ino, offset, limit))]


class SmallStripe(NamedTuple):
    """A small stripe of files with something live in it; `is_hot` when it lies in log volumes."""

    stripe_id: int
    live_bytes: int
    is_hot: bool


def small_stripes(reader: Reader) -> list[SmallStripe]:
    """The oldest small stripes, a few thousand at most.

    A stripe is not small that has much in it and is short because that compressed well: it would be copied for ever,
    and thousands of them would hide the others.
    """
    return [SmallStripe(row[0], row[1], bool(row[2])) for row in reader.rows(_SMALL)]


def half_dead_stripes(reader: Reader, live_share_max: float, live_bytes_max: int) -> list[int]:
    """Stripes of files with at most this share of their bytes live, emptiest first, until so much would be copied."""
    chosen: list[int] = []
    together = 0
    for stripe_id, live_bytes in reader.rows(_HALF_DEAD, (live_share_max,)):
        together += live_bytes
        if together > live_bytes_max:
            break
        chosen.append(stripe_id)
    return chosen


def stripes_by_missing(reader: Reader, absent_drives: Iterable[int]) -> dict[int, int]:
    """How many stripes miss how many shards, those on absent drives included. About a second for a million shards."""
    return dict(reader.rows(_BY_MISSING, (json.dumps(sorted(absent_drives)),)))


def shards_by_drive(reader: Reader) -> dict[int, tuple[int, int]]:
    """How many shards each drive has, and their bytes. About a second for a million shards."""
    return {drive: (shards, bytes_) for drive, shards, bytes_ in reader.rows(_ON_DRIVES)}


def bytes_beside(reader: Reader, drive: int) -> dict[int, int]:
    """For each drive, the bytes of those shards on `drive` whose stripes have a shard on it as well; itself: of all."""
    return dict(reader.rows(_BESIDE, (drive,)))


def files_of_stripes(reader: Reader, stripe_ids: Iterable[int]) -> set[int]:
    """The inodes with bytes in any of the stripes."""
    return {row[0] for stripe_id in stripe_ids for row in reader.rows(_INOS, (stripe_id,))}


def paths_of(reader: Reader, inos: Iterable[int]) -> dict[int, list[bytes]]:
    """All paths of each inode, sorted; an inode without a name has an empty list.

    Looks at every name once: about a second for some million names, whatever the number of inodes.
    """
    wanted: dict[int, list[bytes]] = {ino: [] for ino in inos}
    directories: dict[int, bytes | None] = {ROOT_INO: b""}
    if ROOT_INO in wanted:
        wanted[ROOT_INO].append(b"/")
    for parent, name, ino in reader.rows(_ALL_NAMES):
        if ino in wanted:
            above = _directory_path(reader, parent, directories)
            if above is not None:
                wanted[ino].append(above + b"/" + name)
    for paths in wanted.values():
        paths.sort()
    return wanted


def _directory_path(reader: Reader, ino: int, known: dict[int, bytes | None]) -> bytes | None:
    """The path of a directory without a final "/"; None when it is cut off from the root. Adds to `known`."""
    climbed: list[tuple[int, bytes]] = []
    while ino not in known:
        parents = list(reader.rows(_PARENT, (ino,)))
        names = list(reader.rows(_NAME, (parents[0][0], ino))) if parents else []
        if not names or len(climbed) > _DEPTH_MAX:
            known[ino] = None
            break
        climbed.append((ino, names[0][0]))
        ino = parents[0][0]
    path = known[ino]
    for step, name in reversed(climbed):
        path = None if path is None else path + b"/" + name
        known[step] = path
    return path
