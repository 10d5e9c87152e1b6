"""The record of a volume: one shard, commit or image root, preceded by a head that says what and where it is.

A *needle* is a head of fixed layout, a table with the checksum of each block of the payload, padding, the
payload, and padding to the needle's alignment. The head's checksum covers the fixed fields, one of which is
the checksum of the table, and the table covers the payload. So every length is verified before it is used,
and a payload that a crash tore is found by its blocks. The head repeats the store, volume and offset it was
written for: that protects against writes and reads that went to the wrong place. The byte table is in
FORMAT.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from ciaosfs.base.errors import ShardDamagedError, StoreError
from ciaosfs.base.limits import (
    NEEDLE_ALIGN,
    NEEDLE_ALIGN_LARGE,
    NEEDLE_LARGE_BYTES,
    NEEDLE_PAYLOAD_BYTES_MAX,
    SHARDS_MAX,
)
from ciaosfs.base.types import Buffer, StripeKind
from ciaosfs.codec.checksum import SUM_BYTES, block_count, hash64

NEEDLE_MAGIC = b"CIAOSNDL"
NEEDLE_VERSION = 1

_FIELDS = struct.Struct("<8sHBBI16sQQQHHHxxQQQ32x")
_SUM = struct.Struct("<Q")
FIXED_HEAD_BYTES = _FIELDS.size + _SUM.size
"""Bytes of the head before the table; all a reader needs to learn how long the head is."""

assert FIXED_HEAD_BYTES == 128


class NeedleKind(IntEnum):
    """What the payload of a needle is."""

    SHARD = 1
    COMMIT = 2
    """A changeset of the metadata; `stripe_id` holds its sequence number."""
    IMAGE_ROOT = 3
    """Where the stripes of a metadata image are; `stripe_id` holds the sequence number it is an image of."""


@dataclass(frozen=True, slots=True)
class NeedleHead:
    """What a needle says about itself. Lengths and offsets are bytes.

    `offset` is where the needle begins in its volume. `payload_bytes` is the length of the whole stripe
    before padding, `shard_bytes` the length of this needle's payload. `stripe_kind` is None unless the kind
    is SHARD. `sums` is the table of `block_checksums` over the payload; for COMMIT and IMAGE_ROOT too, with
    the sequence number as the stripe.
    """

    kind: NeedleKind
    store_id: bytes
    volume_id: int
    offset: int
    stripe_id: int
    shard_index: int
    data_count: int
    parity_count: int
    stripe_kind: StripeKind | None
    payload_bytes: int
    shard_bytes: int
    sums: bytes

    @property
    def payload_start(self) -> int:
        """Where the payload begins, counted from the start of the needle."""
        return head_bytes_for(self.shard_bytes)

    @property
    def needle_bytes(self) -> int:
        """Length of the whole record with its padding."""
        return needle_bytes_for(self.shard_bytes)


def needle_align_for(shard_bytes: int) -> int:
    """Return the boundary on which a needle with this much payload begins and ends."""
    return NEEDLE_ALIGN_LARGE if shard_bytes >= NEEDLE_LARGE_BYTES else NEEDLE_ALIGN


def head_bytes_for(shard_bytes: int) -> int:
    """Return the length of a head with its table and padding: the distance from a needle's start to its
    payload.

    A large needle that starts on NEEDLE_ALIGN_LARGE has its payload on it too. A small one has no padding
    here.
    """
    exact = FIXED_HEAD_BYTES + block_count(shard_bytes) * SUM_BYTES
    return _round_up(exact, NEEDLE_ALIGN_LARGE) if shard_bytes >= NEEDLE_LARGE_BYTES else exact


def needle_bytes_for(shard_bytes: int) -> int:
    """Return the length of a whole needle: head, payload, and padding up to its alignment."""
    return _round_up(head_bytes_for(shard_bytes) + shard_bytes, needle_align_for(shard_bytes))


def encode_head(head: NeedleHead) -> bytes:
    """Return the `head.payload_start` bytes that precede the payload."""
    _assert_sound(head)
    payload_start = head.payload_start
    fixed = _FIELDS.pack(
        NEEDLE_MAGIC,
        NEEDLE_VERSION,
        head.kind,
        head.stripe_kind or 0,
        payload_start,
        head.store_id,
        head.volume_id,
        head.offset,
        head.stripe_id,
        head.shard_index,
        head.data_count,
        head.parity_count,
        head.payload_bytes,
        head.shard_bytes,
        hash64(head.sums),
    )
    return (fixed + _SUM.pack(hash64(fixed)) + head.sums).ljust(payload_start, b"\0")


def head_bytes_needed(buf: Buffer) -> int:
    """Return how many bytes of the needle at the start of `buf` decode_head wants: the head without its
    padding.

    `buf` must hold FIXED_HEAD_BYTES. Raises as decode_head, but knows nothing of the place it should be in.
    """
    return FIXED_HEAD_BYTES + block_count(_decode_fixed(buf)[-2]) * SUM_BYTES


def decode_head(
    buf: Buffer,
    *,
    store_id: bytes,
    volume_id: int,
    offset: int,
    kind: NeedleKind | None = None,
    stripe_id: int | None = None,
    shard_index: int | None = None,
) -> NeedleHead:
    """Return the head of the needle that begins at the start of `buf`, read from `offset` of volume
    `volume_id`.

    What is given must be what the head says. Raises ShardDamagedError when the head is torn, flipped, foreign
    or in the wrong place, and StoreError when a newer ciaosfs wrote it. The payload is not looked at.
    """
    (
        found_kind,
        stripe_kind,
        found_store,
        found_volume,
        found_offset,
        found_stripe,
        found_shard,
        data_count,
        parity_count,
        payload_bytes,
        shard_bytes,
        table_sum,
    ) = _decode_fixed(buf)
    if found_store != store_id:
        raise ShardDamagedError(f"{_at(volume_id, offset)} belongs to store {found_store.hex()}")
    if found_volume != volume_id or found_offset != offset:
        raise ShardDamagedError(f"{_at(volume_id, offset)} was written for {_at(found_volume, found_offset)}")
    if kind is not None and found_kind != kind:
        raise ShardDamagedError(f"{_at(volume_id, offset)} is of kind {found_kind}, not {kind:d}")
    if stripe_id is not None and found_stripe != stripe_id:
        raise ShardDamagedError(f"{_at(volume_id, offset)} is of stripe {found_stripe}, not {stripe_id}")
    if shard_index is not None and found_shard != shard_index:
        raise ShardDamagedError(f"{_at(volume_id, offset)} is shard {found_shard}, not {shard_index}")
    table_end = FIXED_HEAD_BYTES + block_count(shard_bytes) * SUM_BYTES
    sums = bytes(memoryview(buf).cast("B")[FIXED_HEAD_BYTES:table_end])
    if len(sums) != table_end - FIXED_HEAD_BYTES:
        raise ShardDamagedError(f"{_at(volume_id, offset)} ends inside its head")
    if hash64(sums) != table_sum:
        raise ShardDamagedError(f"{_at(volume_id, offset)} fails the checksum of its table")
    return NeedleHead(
        NeedleKind(found_kind),
        found_store,
        found_volume,
        found_offset,
        found_stripe,
        found_shard,
        data_count,
        parity_count,
        StripeKind(stripe_kind) if stripe_kind else None,
        payload_bytes,
        shard_bytes,
        sums,
    )


_Fixed = tuple[int, int, bytes, int, int, int, int, int, int, int, int, int]
"""The fields as stored, without magic, version and payload start, which are checked here."""


def _decode_fixed(buf: Buffer) -> _Fixed:
    """Check all of the fixed part that can be checked without knowing where it was read."""
    if len(buf) < FIXED_HEAD_BYTES:
        raise ShardDamagedError(f"a needle ends after {len(buf)} bytes of its head")
    magic, version, kind, stripe_kind, payload_start, *identity = _FIELDS.unpack_from(buf)
    if magic != NEEDLE_MAGIC:
        raise ShardDamagedError("there is no needle: its mark is missing")
    if _SUM.unpack_from(buf, _FIELDS.size)[0] != hash64(memoryview(buf).cast("B")[: _FIELDS.size]):
        raise ShardDamagedError("a needle fails the checksum of its head")
    # The checksum lies where it does in every version, so a flipped version is damage, not news from the
    # future.
    if version > NEEDLE_VERSION:
        raise StoreError(
            f"A needle has format version {version}, newer than this ciaosfs "
            f"({NEEDLE_VERSION}): use the one that wrote it."
        )
    store_id, volume_id, offset, stripe_id, shard_index, data_count, parity_count, *lengths = identity
    payload_bytes, shard_bytes, table_sum = lengths
    sound = (
        version >= 1
        and kind in _KINDS
        and (stripe_kind in _STRIPE_KINDS if kind == NeedleKind.SHARD else stripe_kind == 0)
        and data_count >= 1
        and shard_index < data_count + parity_count <= SHARDS_MAX
        and shard_bytes <= NEEDLE_PAYLOAD_BYTES_MAX
        and payload_bytes <= data_count * shard_bytes
        and payload_start == head_bytes_for(shard_bytes)
        and offset % NEEDLE_ALIGN == 0
    )
    if not sound:
        raise ShardDamagedError(f"{_at(volume_id, offset)} has a head that contradicts itself")
    return (
        kind,
        stripe_kind,
        store_id,
        volume_id,
        offset,
        stripe_id,
        shard_index,
        data_count,
        parity_count,
        payload_bytes,
        shard_bytes,
        table_sum,
    )


_KINDS = frozenset(int(kind) for kind in NeedleKind)
_STRIPE_KINDS = frozenset(int(kind) for kind in StripeKind)


def _assert_sound(head: NeedleHead) -> None:
    """What decode_head would refuse must not be written."""
    assert len(head.store_id) == 16
    assert head.offset % NEEDLE_ALIGN == 0
    assert (head.kind is NeedleKind.SHARD) == (head.stripe_kind is not None)
    assert head.data_count >= 1 and head.parity_count >= 0
    assert 0 <= head.shard_index < head.data_count + head.parity_count <= SHARDS_MAX
    assert 0 <= head.shard_bytes <= NEEDLE_PAYLOAD_BYTES_MAX
    assert 0 <= head.payload_bytes <= head.data_count * head.shard_bytes
    assert len(head.sums) == block_count(head.shard_bytes) * SUM_BYTES


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _at(volume_id: int, offset: int) -> str:
    return f"the needle at byte {offset} of volume {volume_id:016x}"
