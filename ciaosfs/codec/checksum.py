"""How stored bytes are told from damaged ones: xxh3 over blocks, seeded with the place the block belongs to.

A *block* is CHECK_BLOCK_BYTES of one shard; the last block of a shard may be shorter. The seed of a block is
made from its stripe, shard and position, so a good block found in the wrong place fails like a flipped bit.
Checksums guard against decay and misdirected I/O, not against somebody who forges them. FORMAT.md has the
byte table.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import xxhash

from ciaosfs.base.limits import CHECK_BLOCK_BYTES
from ciaosfs.base.types import Buffer

SUM_BYTES = 8
"""Size of one checksum in a table: a little-endian u64."""

_SUM = struct.Struct("<Q")
_MASK = (1 << 64) - 1
_SPREAD = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio, odd: neighbouring stripe ids land far apart in the space of seeds."""

_hash = xxhash.xxh3_64_intdigest


def hash64(data: Buffer, seed: int = 0) -> int:
    """Return the 64-bit xxh3 of `data`."""
    return _hash(data, seed)


def block_count(length: int) -> int:
    """Return how many blocks `length` bytes of a shard make."""
    return -(-length // CHECK_BLOCK_BYTES)


def block_checksums(payload: Sequence[Buffer], stripe_id: int, shard_index: int) -> bytes:
    """Return the checksum table of a shard: SUM_BYTES per block.

    `payload` is the shard from its first byte to its last, in one or more parts of any length.
    """
    seed = _seed_base(stripe_id, shard_index)
    sums: list[int] = []
    straddler: xxhash.xxh3_64 | None = None
    """The block that began in an earlier part, and how much of it is still to come."""
    wanted = 0
    for part in payload:
        view = memoryview(part).cast("B")
        start = 0
        if straddler is not None:
            start = min(wanted, len(view))
            straddler.update(view[:start])
            wanted -= start
            if wanted:
                continue
            sums.append(straddler.intdigest())
            straddler = None
        whole = start + (len(view) - start) // CHECK_BLOCK_BYTES * CHECK_BLOCK_BYTES
        first = seed + len(sums)
        sums += [
            _hash(view[at : at + CHECK_BLOCK_BYTES], (first + number) & _MASK)
            for number, at in enumerate(range(start, whole, CHECK_BLOCK_BYTES))
        ]
        if whole < len(view):
            straddler = xxhash.xxh3_64(view[whole:], (seed + len(sums)) & _MASK)
            wanted = CHECK_BLOCK_BYTES - (len(view) - whole)
    if straddler is not None:
        sums.append(straddler.intdigest())
    return struct.pack(f"<{len(sums)}Q", *sums)


def verify_blocks(
    data: Buffer, sums: bytes, first_block: int, stripe_id: int, shard_index: int
) -> int | None:
    """Check bytes read from a shard; return the first bad block's index in the shard, None if all are good.

    `data` starts at block `first_block` and ends at a block's end or at the shard's. `sums` is the whole
    table of the shard.
    """
    length = len(data)
    count = block_count(length)
    assert first_block >= 0 and (first_block + count) * SUM_BYTES <= len(sums), "the range leaves the shard"
    seed = _seed_base(stripe_id, shard_index) + first_block
    if count == 1:  # a small random read: half the time without slicing
        (expected,) = _SUM.unpack_from(sums, first_block * SUM_BYTES)
        return None if _hash(data, seed & _MASK) == expected else first_block
    view = memoryview(data)
    at = 0
    for expected in struct.unpack_from(f"<{count}Q", sums, first_block * SUM_BYTES):
        if _hash(view[at : at + CHECK_BLOCK_BYTES], seed & _MASK) != expected:
            return first_block + at // CHECK_BLOCK_BYTES
        at += CHECK_BLOCK_BYTES
        seed += 1
    return None


def _seed_base(stripe_id: int, shard_index: int) -> int:
    """Return the seed of block 0; each further block adds one, modulo 2**64."""
    return (stripe_id * _SPREAD + (shard_index << 32)) & _MASK
