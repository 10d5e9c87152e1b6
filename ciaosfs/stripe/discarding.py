"""Giving the space of dead stripes and volumes back to the drives' file systems."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from ciaosfs.base.errors import CiaosError
from ciaosfs.base.types import StripeRecord
from ciaosfs.codec.needle import needle_bytes_for
from ciaosfs.drive.local import volume_name
from ciaosfs.drive.tours import Step
from ciaosfs.volume.files import VolumeFiles

log = logging.getLogger(__name__)


def punch_steps(files: VolumeFiles, records: Sequence[StripeRecord]) -> list[Step]:
    """Calls that punch the needles of dead stripes out of their volumes; each returns how many bytes they had.

    Whole pages only, so a small needle gives back little, unless its neighbours are dead too: compaction is
    for those. A drive that is absent keeps its bytes until a job finds that nothing refers to them; an error
    on one is no reason to keep the others'.
    """
    needles: dict[int, list[tuple[int, int]]] = {}
    for record in records:
        length = needle_bytes_for(record.shard_bytes)
        for place in record.places:
            needles.setdefault(place.volume_id, []).append((place.offset, length))
    steps = []
    for volume_id, ranges in needles.items():
        volume = files.get(volume_id)
        if volume is not None:
            steps.append(Step(volume.drive_number, partial(_punch, files, volume_id, ranges)))
    return steps


def _punch(files: VolumeFiles, volume_id: int, ranges: Sequence[tuple[int, int]]) -> int:
    given_back = 0
    try:
        with files.writing(volume_id) as file:
            for offset, length in merge_adjacent(ranges):
                file.punch(offset, length)
                given_back += length
    except (CiaosError, OSError) as error:
        log.debug("dead shards in volume %016x stay: %s", volume_id, error)
    return given_back


def remove_volume(files: VolumeFiles, volume_id: int) -> bool:
    """Delete a volume's file. Blocking. False when its drive is absent or fails: it stays, for another
    time."""
    volume = files.get(volume_id)
    if volume is None:
        return False
    try:
        volume.drive.remove(volume_name(volume_id))
    except FileNotFoundError:
        return True
    except (CiaosError, OSError) as error:
        log.debug("dead volume %016x stays: %s", volume_id, error)
        return False
    return True


def merge_adjacent(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(offset, length) ranges, those that touch made one, in order. A gap may hold a live needle and is
    kept."""
    merged: list[tuple[int, int]] = []
    for offset, length in sorted(ranges):
        if merged and merged[-1][0] + merged[-1][1] == offset:
            merged[-1] = (merged[-1][0], merged[-1][1] + length)
        else:
            merged.append((offset, length))
    return merged
