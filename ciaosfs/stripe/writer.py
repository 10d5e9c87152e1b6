"""Payloads become stripes: which form, cut into shards, parity, and out to the drives.

A small payload is replicated into the log volumes, where the sync of the commit that refers to it covers it
too; a large one, or any when the log's drives are nearly full, is coded into data volumes. Losing a drive
meanwhile makes a stripe with a missing shard, which is a state and no error.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ciaosfs.base import limits
from ciaosfs.base.clock import IdSource
from ciaosfs.base.errors import NoSpaceError
from ciaosfs.base.types import Buffer, StripeKind, StripeRecord, VolumeKind
from ciaosfs.codec.erasure import encode_parity
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.stripe.choosing import Chooser
from ciaosfs.stripe.durability import Durability
from ciaosfs.stripe.layout import Shape, coded_shape, hot_shape
from ciaosfs.stripe.spreading import NeedleSpec, Shard, Spreader, Written


@dataclass(frozen=True, slots=True)
class WriterStatistics:
    """Counts since the store was opened."""

    stripes: int
    stripes_hot: int
    stripes_degraded: int
    payload_bytes: int


class StripeWriter:
    """Writes stripes; what it returns is written, not synced. All methods are for the loop."""

    def __init__(
        self,
        chooser: Chooser,
        spreader: Spreader,
        durability: Durability,
        ids: IdSource,
        data_count: int,
        parity_count: int,
    ) -> None:
        self._chooser = chooser
        self._spreader = spreader
        self._durability = durability
        self._ids = ids
        self._data_count = data_count
        self._parity_count = parity_count
        self.under_way: set[int] = set()
        """Stripes that are being written, or are written and not part of the metadata yet."""
        self._stripes = 0
        self._stripes_hot = 0
        self._stripes_degraded = 0
        self._payload_bytes = 0

    async def write(
        self, pieces: Sequence[Buffer], kind: StripeKind, *, coded: bool = False
    ) -> tuple[StripeRecord, Sequence[Written]]:
        """Write the concatenation of `pieces`; see ChunkStore.write_stripe."""
        payload_bytes = sum(map(len, pieces))
        usable = self._spreader.check_drives()
        if payload_bytes <= limits.HOT_PAYLOAD_BYTES_MAX and not coded:
            shape = hot_shape(payload_bytes, self._parity_count)
            wanted = min(shape.shard_count, usable)
            if len(self._chooser.for_hot(shape, wanted, (), ())) == wanted:
                try:
                    return await self._write(pieces, kind, shape)
                except NoSpaceError:
                    pass  # the copies met a drive that was fuller than it said: shards are smaller
        return await self._write(
            pieces, kind, coded_shape(payload_bytes, self._data_count, self._parity_count)
        )

    async def _write(
        self, pieces: Sequence[Buffer], kind: StripeKind, shape: Shape
    ) -> tuple[StripeRecord, Sequence[Written]]:
        is_hot = shape.volume_kind is VolumeKind.LOG
        chooser = self._chooser.for_hot if is_hot else self._chooser.for_data

        def choose(count: int, exclude: Collection[int], holders: Collection[int]) -> list[int]:
            return chooser(shape, count, exclude, holders)

        spec = NeedleSpec(NeedleKind.SHARD, self._ids.take(), kind, shape)
        self.under_way.add(spec.stripe_id)
        try:
            written = await self._spreader.spread(spec, StripeLoad(pieces, shape), choose)
        except BaseException:
            self.under_way.discard(spec.stripe_id)
            raise
        # No await from here: the sync that covers the shards must know the stripe they belong to.
        record = StripeRecord(
            spec.stripe_id,
            kind,
            shape.data_count,
            shape.parity_count,
            shape.payload_bytes,
            shape.shard_bytes,
            tuple(needle.place for needle in written),
        )
        self._durability.stripe_written(record)
        self._stripes += 1
        self._stripes_hot += is_hot
        self._stripes_degraded += record.missing_count > 0
        self._payload_bytes += shape.payload_bytes
        return record, written

    def statistics(self) -> WriterStatistics:
        return WriterStatistics(self._stripes, self._stripes_hot, self._stripes_degraded, self._payload_bytes)


class StripeLoad:
    """The shards of one payload, made when they are asked for."""

    def __init__(self, pieces: Sequence[Buffer], shape: Shape) -> None:
        self._pieces = pieces
        self._shape = shape

    def shards(self) -> Sequence[Shard]:
        """Cut and code. Blocking, about 1 ms per MiB."""
        shape = self._shape
        if shape.data_count == 1:
            return [self._pieces] * shape.shard_count
        data = cut_shards(self._pieces, shape.data_count, shape.shard_bytes)
        return [[shard] for shard in (*data, *encode_parity(data, shape.parity_count))]


def cut_shards(pieces: Sequence[Buffer], data_count: int, shard_bytes: int) -> list[Buffer]:
    """The data shards of a payload. One that lies inside one piece is a view of it, others are copied
    together."""
    shards: list[Buffer] = []
    parts: list[Buffer] = []
    missing = shard_bytes
    for piece in pieces:
        view = memoryview(piece).cast("B")
        at = 0
        while at < len(view):
            part = view[at : at + missing]
            parts.append(part)
            at += len(part)
            missing -= len(part)
            if missing == 0:
                shards.append(parts[0] if len(parts) == 1 else b"".join(parts))
                parts = []
                missing = shard_bytes
    if parts:
        shards.append(b"".join([*parts, bytes(missing)]))
    shards.extend(bytes(shard_bytes) for _ in range(data_count - len(shards)))
    assert len(shards) == data_count, "the payload is longer than its shape"
    return shards
