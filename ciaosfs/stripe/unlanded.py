"""Which volumes hold shards that are written, or being written, and that no row of the metadata names yet.

Between the write of a shard and the row that says where it lies, nothing but this tells that its volume is needed. A
stripe is *sent* when places for its needles are taken, and *landed* when its rows are in the open transaction. One that
is never landed (its writer failed after the write) keeps its volumes until the store is opened anew: too long is no harm.
"""

from __future__ import annotations


class Unlanded:
    """All methods are for the loop."""

    def __init__(self) -> None:
        self._volumes: dict[int, set[int]] = {}

    def sent(self, stripe_id: int, volume_id: int) -> None:
        """A needle of the stripe goes to this volume."""
        self._volumes.setdefault(stripe_id, set()).add(volume_id)

    def landed(self, stripe_id: int) -> None:
        """Rows name the places of all its needles, or it came to nothing."""
        self._volumes.pop(stripe_id, None)

    def holds(self, volume_id: int) -> bool:
        """Whether a needle without a row may lie in the volume."""
        return any(volume_id in volumes for volumes in self._volumes.values())
