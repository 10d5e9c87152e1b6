"""Telling of shards that did not come when they were needed: once in the log, each time to whoever repairs."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ciaosfs.base.errors import DamagedError, DriveGoneError, DriveHangsError
from ciaosfs.base.types import ShardPlace, StripeRecord
from ciaosfs.stripe.durability import OnDamage

log = logging.getLogger(__name__)

REPORTS_MAX = 1024
"""Damaged shards remembered so that the log names each once."""


class DamageReports:
    """`all_present` says whether every drive of the store is there. For the loop."""

    def __init__(self, on_damage: OnDamage, all_present: Callable[[], bool]) -> None:
        self._on_damage = on_damage
        self._all_present = all_present
        self._reported: dict[tuple[int, int], None] = {}
        self.count = 0
        """Shards reported since the store was opened, each time one was met."""

    def report(self, stripe: StripeRecord, place: ShardPlace, error: Exception) -> bool:
        """Tell of a shard that did not come. True when it is damaged, False when its drive is away or
        failing."""
        if isinstance(error, DriveHangsError):
            return False
        if isinstance(error, DriveGoneError) and not self._all_present():
            return False
        key = (stripe.stripe_id, place.shard_index)
        if key not in self._reported:
            self._reported[key] = None
            if len(self._reported) > REPORTS_MAX:
                del self._reported[next(iter(self._reported))]
            log.warning(
                "shard %d of stripe %d is not readable: %s", place.shard_index, stripe.stripe_id, error
            )
        self.count += 1
        self._on_damage(stripe.stripe_id, place.shard_index, str(error))
        return isinstance(error, (DamagedError, DriveGoneError, FileNotFoundError))


def no_volume(place: ShardPlace) -> DriveGoneError:
    """What is to be reported of a shard whose volume is nowhere to be seen."""
    return DriveGoneError(f"Volume {place.volume_id:016x} is on no drive that is there.")
