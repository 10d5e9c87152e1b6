"""Which volumes nothing needs any more, and what keeps others needed. In a worker thread, of a `Reader`.

The answers are of one committed moment: what is done about them is decided anew in the loop, volume by volume.
"""

from __future__ import annotations

from typing import Final

from ciaosfs.meta.reader import Reader
from ciaosfs.meta.volumes import VolumeRow

_NEWEST: Final = "WITH newest AS (SELECT max(volume) AS volume FROM volumes WHERE kind = 1 GROUP BY drive)"
_UNUSED: Final = (
    f"{_NEWEST} SELECT volume, drive, kind, state FROM volumes WHERE volume > ?1 AND state = 'sealed'"
    " AND volume NOT IN (SELECT volume FROM newest) AND (kind = 1 OR volume < ?2)"
    " AND NOT EXISTS (SELECT 1 FROM shards WHERE shards.volume = volumes.volume) ORDER BY volume LIMIT ?3"
)
_OPEN: Final = (
    f"{_NEWEST} SELECT volume, drive, kind, state FROM volumes WHERE volume < ?1 AND state = 'open'"
    " AND volume NOT IN (SELECT volume FROM newest) ORDER BY volume LIMIT ?2"
)
_KNOWN: Final = "SELECT volume FROM volumes"
_IN_LOG: Final = (
    "SELECT DISTINCT shards.stripe FROM volumes JOIN shards ON shards.volume = volumes.volume"
    " JOIN stripes ON stripes.stripe = shards.stripe"
    " WHERE volumes.kind = 2 AND volumes.volume < ?1 AND stripes.kind = 1 AND stripes.live_bytes > 0 LIMIT ?2"
)


def unused_volumes(reader: Reader, after: int, log_volume_min: int, limit: int) -> list[VolumeRow]:
    """Up to `limit` sealed volumes with ids above `after` in which no shard lies; of the log, those below `log_volume_min`.

    The newest data volume of a drive is never among them: a session may be about to continue it.
    """
    return [VolumeRow._make(row) for row in reader.rows(_UNUSED, (after, log_volume_min, limit))]


def left_open(reader: Reader, below: int, limit: int) -> list[VolumeRow]:
    """Up to `limit` volumes with ids below `below` that sessions which are over never said to be sealed."""
    return [VolumeRow._make(row) for row in reader.rows(_OPEN, (below, limit))]


def known_volumes(reader: Reader) -> set[int]:
    """The ids of all volumes that have a row."""
    return {row[0] for row in reader.rows(_KNOWN)}


def live_in_log(reader: Reader, log_volume_min: int, limit: int) -> list[int]:
    """Up to `limit` live stripes of files with a shard in a log volume below `log_volume_min`."""
    return [row[0] for row in reader.rows(_IN_LOG, (log_volume_min, limit))]
