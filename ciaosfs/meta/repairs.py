"""Which stripes miss shards, worst first. In a worker thread, of a `Reader`."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Final, NamedTuple

from ciaosfs.meta.reader import Reader

_ALIVE: Final = "NOT (live_bytes = 0 AND kind = 1)"
_PAGE: Final = (
    "SELECT stripe, missing, parity_count FROM stripes WHERE missing > 0 AND (missing, stripe) < (?1, ?2)"
    f" AND {_ALIVE} ORDER BY missing DESC, stripe DESC LIMIT ?3"
)
_COUNT: Final = f"SELECT count(*) FROM stripes WHERE missing > 0 AND {_ALIVE}"
_LACKING: Final = (
    "SELECT stripes.stripe AS stripe, stripes.missing + count(volumes.volume) AS lacking, parity_count"
    " FROM stripes LEFT JOIN shards ON shards.stripe = stripes.stripe"
    " LEFT JOIN volumes ON volumes.volume = shards.volume AND volumes.drive IN (SELECT value FROM json_each(?1))"
    " WHERE NOT (stripes.live_bytes = 0 AND stripes.kind = 1)"
    " GROUP BY stripes.stripe HAVING lacking > 0"
)
_PAGE_WITH_DRIVES: Final = (
    f"SELECT stripe, lacking, parity_count FROM ({_LACKING}) WHERE (lacking, stripe) < (?2, ?3)"
    " ORDER BY lacking DESC, stripe DESC LIMIT ?4"
)
_COUNT_WITH_DRIVES: Final = f"SELECT count(*) FROM ({_LACKING})"


class Lacking(NamedTuple):
    """A stripe that misses `missing` shards, those on drives that are given up included."""

    stripe_id: int
    missing: int
    parity_count: int


BEFORE_ALL: Final = Lacking(0, 1 << 30, 0)
"""Where to begin."""


def lacking_stripes(reader: Reader, given_up: Collection[int], after: Lacking, limit: int) -> list[Lacking]:
    """Up to `limit` stripes after `after`, those that miss most first. What lies on drives `given_up` is missing, too.

    With drives given up it looks at every shard: about a second for a million.
    """
    if given_up:
        rows = reader.rows(
            _PAGE_WITH_DRIVES, (json.dumps(sorted(given_up)), after.missing, after.stripe_id, limit)
        )
    else:
        rows = reader.rows(_PAGE, (after.missing, after.stripe_id, limit))
    return [Lacking._make(row) for row in rows]


def count_lacking(reader: Reader, given_up: Collection[int]) -> int:
    """How many there are altogether."""
    query, bindings = (_COUNT_WITH_DRIVES, (json.dumps(sorted(given_up)),)) if given_up else (_COUNT, ())
    return int(next(reader.rows(query, bindings))[0])
