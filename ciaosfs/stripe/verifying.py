"""Is a shard whole where it should be? Read in full from its drive and held against its checksums, outside any cache.

Four answers. *Whole*. *Damaged*: proved by a checksum, an identity or a length; no later look will find it otherwise.
*Unreadable*: the device raised an error, or a newer ciaosfs wrote the needle; it may be whole tomorrow. *Away*: no drive
that is there has the volume, or its drive does not answer; which of these, and whether the volume was lost, is for the
caller to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

import outcome

from ciaosfs.base import limits
from ciaosfs.base.errors import DriveGoneError, ShardDamagedError, StoreError
from ciaosfs.base.types import ShardPlace, StripeRecord
from ciaosfs.codec.needle import NeedleKind, needle_bytes_for
from ciaosfs.drive.calls import DriveCalls
from ciaosfs.drive.interface import DriveFile
from ciaosfs.drive.tours import Step, raise_unexpected
from ciaosfs.stripe.damage import no_volume
from ciaosfs.volume.files import VolumeFiles
from ciaosfs.volume.reader import read_head, read_range


class Condition(Enum):
    """See the module."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Finding:
    """The condition of one shard, and a sentence about what is wrong; empty when it is whole."""

    condition: Condition
    reason: str = ""


WHOLE = Finding(Condition.WHOLE)


async def verify_shards(
    files: VolumeFiles,
    calls: DriveCalls,
    items: Sequence[tuple[StripeRecord, ShardPlace]],
    *,
    with_data: bool,
) -> list[Finding]:
    """The condition of each shard, in order. Without `with_data` only the heads are read and checked."""
    findings: list[Finding] = []
    steps = []
    for number, (record, place) in enumerate(items):
        volume = files.get(place.volume_id)
        if volume is None:
            findings.append(Finding(Condition.AWAY, str(no_volume(place))))
        else:
            findings.append(Finding(Condition.AWAY, f"drive {volume.drive_number} does not answer"))
            steps.append(
                (number, Step(volume.drive_number, partial(_verify, files, record, place, with_data)))
            )
    results = await calls.tour([step for _, step in steps])
    raise_unexpected(results)
    for (number, _), result in zip(steps, results, strict=True):
        if isinstance(result, outcome.Value):
            findings[number] = result.value
    return findings


def _verify(files: VolumeFiles, record: StripeRecord, place: ShardPlace, with_data: bool) -> Finding:
    try:
        with files.reading(place.volume_id) as (_, file):
            _read(file, files.store_id, record, place, with_data)
    except ShardDamagedError as error:
        return Finding(Condition.DAMAGED, str(error))
    except FileNotFoundError:
        return Finding(Condition.DAMAGED, f"volume {place.volume_id:016x} is not on its drive any more")
    except DriveGoneError as error:
        return Finding(Condition.AWAY, str(error))
    except (StoreError, OSError) as error:
        return Finding(Condition.UNREADABLE, str(error))
    return WHOLE


def _read(file: DriveFile, store_id: bytes, record: StripeRecord, place: ShardPlace, with_data: bool) -> None:
    length = needle_bytes_for(record.shard_bytes)
    # What is in the page cache would be verified in place of what is on the disk.
    file.write_behind(place.offset, length)
    head = read_head(
        file,
        store_id,
        place.volume_id,
        place.offset,
        record.shard_bytes,
        kind=NeedleKind.SHARD,
        stripe_id=record.stripe_id,
        shard_index=place.shard_index,
    )
    told = (head.stripe_kind, head.data_count, head.parity_count, head.payload_bytes)
    if told != (record.kind, record.data_count, record.parity_count, record.payload_bytes):
        raise ShardDamagedError(
            f"The needle at byte {place.offset} of volume {place.volume_id:016x} says {told}, "
            f"which is not what stripe {record.stripe_id} is."
        )
    if not with_data:
        if file.size() < place.offset + head.payload_start + record.shard_bytes:
            raise ShardDamagedError(
                f"Volume {place.volume_id:016x} ends inside the needle at byte {place.offset}."
            )
        return
    for start in range(0, record.shard_bytes, limits.VERIFY_STEP_BYTES):
        read_range(file, head, start, min(limits.VERIFY_STEP_BYTES, record.shard_bytes - start))
    file.write_behind(place.offset, length)  # nobody asked for these pages
