"""Which stripes have lost how much of their protection, and the files in those that cannot be read any more.

In a worker thread, of a `Reader`. Dead stripes do not count: nobody wants their bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple

from ciaosfs.base import limits
from ciaosfs.meta.reader import Reader
from ciaosfs.meta.reports import paths_of


class Lost(NamedTuple):
    """A stripe that misses more shards than parity replaces. `lost_count`: missing, in lost places, or bad."""

    stripe_id: int
    data_count: int
    parity_count: int
    lost_count: int


class DamagedFile(NamedTuple):
    """A file with bytes in a lost stripe, and all its paths; none when it was unlinked and is still open."""

    ino: int
    paths: list[bytes]


_ALIVE: Final = "NOT (stripes.live_bytes = 0 AND stripes.kind = 1)"
_GONE: Final = (
    "WITH gone AS (SELECT value AS volume FROM json_each(?1) UNION"
    " SELECT volume FROM volumes WHERE drive IN (SELECT value FROM json_each(?2)))"
)
_LOST: Final = (
    f"{_GONE}, bad AS (SELECT json_extract(value, '$[0]') AS stripe, count(*) AS shards FROM json_each(?3) GROUP BY 1)"
    " SELECT stripes.stripe, data_count, parity_count, missing + count(gone.volume) + ifnull(bad.shards, 0) AS lost"
    " FROM stripes LEFT JOIN shards ON shards.stripe = stripes.stripe LEFT JOIN gone ON gone.volume = shards.volume"
    f" LEFT JOIN bad ON bad.stripe = stripes.stripe WHERE {_ALIVE}"
    " GROUP BY stripes.stripe HAVING lost > parity_count ORDER BY stripes.stripe"
)
_LOST_FOR_GOOD: Final = (
    "SELECT stripe, data_count, parity_count, missing FROM stripes"
    f" WHERE missing > 0 AND missing > parity_count AND {_ALIVE} ORDER BY stripe"
)
_ALIVE_OF: Final = (
    "SELECT stripe, data_count, parity_count, parity_count + 1 FROM stripes"
    f" WHERE stripe IN (SELECT value FROM json_each(?)) AND {_ALIVE} ORDER BY stripe"
)
_SPARE: Final = (
    f"{_GONE} SELECT spare, count(*) FROM (SELECT parity_count - missing - count(gone.volume) AS spare FROM stripes"
    " LEFT JOIN shards ON shards.stripe = stripes.stripe LEFT JOIN gone ON gone.volume = shards.volume"
    f" WHERE {_ALIVE} GROUP BY stripes.stripe) GROUP BY spare"
)
_SPARE_OF_DEGRADED: Final = (
    f"SELECT parity_count - missing, count(*) FROM stripes WHERE missing > 0 AND {_ALIVE} GROUP BY 1"
)
_VOLUMES: Final = "SELECT volume, drive FROM volumes WHERE state <> 'dead'"
_INOS: Final = "SELECT DISTINCT ino FROM extents WHERE stripe = ?"


def lost_stripes(
    reader: Reader,
    gone_volumes: Collection[int] = (),
    absent_drives: Collection[int] = (),
    bad_shards: Collection[tuple[int, int]] = (),
    found_lost: Collection[int] = (),
) -> Iterator[Lost]:
    """The stripes that cannot be read, lowest id first, and then those `found_lost` by a look at them.

    What lies in `gone_volumes` or on `absent_drives` counts as lost, and so do `bad_shards`, (stripe, index), which
    lie in neither. Without any of them it is a look into an index, else one at every shard.
    """
    if not gone_volumes and not absent_drives and not bad_shards:
        rows = reader.rows(_LOST_FOR_GOOD)
    else:
        lists = (sorted(gone_volumes), sorted(absent_drives), sorted(bad_shards))
        rows = reader.rows(_LOST, tuple(json.dumps(values) for values in lists))
    told: set[int] = set()
    for row in rows:
        lost = Lost._make(row)
        if found_lost:
            told.add(lost.stripe_id)
        yield lost
    if found_lost:
        for row in reader.rows(_ALIVE_OF, (json.dumps(sorted(set(found_lost) - told)),)):
            yield Lost._make(row)


def gone_volumes(reader: Reader, is_gone: Callable[[int, int], bool]) -> list[int]:
    """The volumes of which `is_gone` says, by volume and drive, that they are not where they should be."""
    return [volume for volume, drive in reader.rows(_VOLUMES) if is_gone(volume, drive)]


def stripes_by_spare(
    reader: Reader, gone_volumes: Collection[int] = (), absent_drives: Collection[int] = ()
) -> dict[int, int]:
    """How many stripes can do without how many more shards; below 0 they cannot be read. Whole ones may be left out.

    Looks at every shard when volumes are gone or drives absent: about a second for a million.
    """
    if not gone_volumes and not absent_drives:
        return dict(reader.rows(_SPARE_OF_DEGRADED))
    lists = (sorted(gone_volumes), sorted(absent_drives))
    return dict(reader.rows(_SPARE, tuple(json.dumps(values) for values in lists)))


def damaged_files(reader: Reader, lost: Iterable[Lost]) -> Iterator[DamagedFile]:
    """The files with bytes in the lost stripes, in batches by what memory may hold, so perhaps a file twice."""
    batch: set[int] = set()
    for stripe in lost:
        batch.update(row[0] for row in reader.rows(_INOS, (stripe.stripe_id,)))
        if len(batch) >= limits.DAMAGED_BATCH_FILES:
            yield from _with_paths(reader, batch)
            batch.clear()
    yield from _with_paths(reader, batch)


def _with_paths(reader: Reader, inos: set[int]) -> Iterator[DamagedFile]:
    if inos:
        for ino, paths in sorted(paths_of(reader, inos).items()):
            yield DamagedFile(ino, paths)
