"""What a commit brings, read from its changeset without applying it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import apsw

from ciaosfs.base.errors import LogDamagedError
from ciaosfs.base.types import ShardPlace

_LIVE_BYTES: Final = 6
"""The column of `stripes`."""


def stripes_brought(changeset: bytes) -> list[int]:
    """The ids of the stripes that the commit made known, lowest first. LogDamagedError when it cannot be
    read.
    """
    found: list[int] = []
    try:
        for change in apsw.Changeset.iter(changeset):
            if change.name == "stripes" and change.op == "INSERT" and change.new is not None:
                stripe_id = change.new[0]
                assert isinstance(stripe_id, int)
                found.append(stripe_id)
    except apsw.Error as error:
        raise LogDamagedError(f"The changes of a commit cannot be read: {error}.") from error
    return sorted(found)


def stripes_given_up(changeset: bytes) -> set[int]:
    """The stripes that were in use before the commit and of which it left nothing. LogDamagedError when it cannot be
    read.
    """
    found: set[int] = set()
    try:
        for change in apsw.Changeset.iter(changeset):
            if change.name == "stripes" and change.old is not None:
                is_dead = change.new is None or change.new[_LIVE_BYTES] == 0
                if is_dead and change.old[_LIVE_BYTES] != 0:
                    stripe_id = change.old[0]
                    assert isinstance(stripe_id, int)
                    found.add(stripe_id)
    except apsw.Error as error:
        raise LogDamagedError(f"The changes of a commit cannot be read: {error}.") from error
    return found


def shards_moved(changeset: bytes) -> dict[int, list[int]]:
    """The stripes that were there before the commit and of which it placed shards anew, and the indexes of those.
    LogDamagedError when it cannot be read.
    """
    brought = set(stripes_brought(changeset))
    found: dict[int, list[int]] = {}
    for change in apsw.Changeset.iter(changeset):
        before = change.new if change.op == "INSERT" else change.old
        if change.name != "shards" or change.op == "DELETE" or before is None:
            continue
        stripe_id, shard_index = before[0], before[1]
        assert isinstance(stripe_id, int) and isinstance(shard_index, int)
        if stripe_id not in brought:
            found.setdefault(stripe_id, []).append(shard_index)
    return found


Places = dict[tuple[int, int], ShardPlace | None]
"""Where shards lie, by (stripe id, shard index); None for one that is missing."""


def follow_shards(changesets: Iterable[bytes], places: Places) -> Places:
    """Where the shards in `places` are after these commits, in order. LogDamagedError when one cannot be read."""
    now = dict(places)
    try:
        for changeset in changesets:
            for change in apsw.Changeset.iter(changeset):
                if change.name == "shards":
                    _follow(change, now)
    except apsw.Error as error:
        raise LogDamagedError(f"The changes of a commit cannot be read: {error}.") from error
    return now


def _follow(change: apsw.TableChange, places: Places) -> None:
    """Take over one change of a row (stripe, shard index, volume, offset)."""
    before = change.new if change.op == "INSERT" else change.old
    assert before is not None
    stripe_id, shard_index = before[0], before[1]
    assert isinstance(stripe_id, int) and isinstance(shard_index, int)
    key = (stripe_id, shard_index)
    if key not in places:
        return
    if change.new is None:
        places[key] = None
        return
    known = places[key]
    volume_id, offset = change.new[2], change.new[3]
    if not isinstance(volume_id, int) and known is not None:
        volume_id = known.volume_id  # the change does not name it: it stayed
    if not isinstance(offset, int) and known is not None:
        offset = known.offset
    if not isinstance(volume_id, int) or not isinstance(offset, int):
        raise LogDamagedError(
            f"A commit moves shard {shard_index} of stripe {stripe_id}, which was not there."
        )
    places[key] = ShardPlace(shard_index, volume_id, offset)
