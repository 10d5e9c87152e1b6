"""Verified reading of needles. Nothing leaves here that was not checked against its needle's checksums.

A needle's head is read once, checked against the identity the caller expects, and cached by the caller;
ranges of its payload are then read in whole blocks, each of which is verified, and the range is a view into
them.
"""

from __future__ import annotations

from ciaosfs.base.errors import ShardDamagedError
from ciaosfs.base.limits import CHECK_BLOCK_BYTES
from ciaosfs.base.types import Buffer
from ciaosfs.codec.checksum import verify_blocks
from ciaosfs.codec.needle import NeedleHead, NeedleKind, decode_head, head_bytes_for
from ciaosfs.drive.interface import DriveFile


def read_head(
    file: DriveFile,
    store_id: bytes,
    volume_id: int,
    offset: int,
    shard_bytes: int,
    *,
    kind: NeedleKind,
    stripe_id: int,
    shard_index: int,
) -> NeedleHead:
    """Read and verify the head of the needle at `offset`, whose payload is `shard_bytes` long. Blocking.

    Raises ShardDamagedError when there is no such needle, it is another one, or it is damaged, OSError when
    the drive fails.
    """
    buf = file.read(offset, head_bytes_for(shard_bytes))
    head = decode_head(
        buf,
        store_id=store_id,
        volume_id=volume_id,
        offset=offset,
        kind=kind,
        stripe_id=stripe_id,
        shard_index=shard_index,
    )
    if head.shard_bytes != shard_bytes:
        raise ShardDamagedError(
            f"The needle at byte {offset} of volume {volume_id:016x} is {head.shard_bytes} bytes long, "
            f"not {shard_bytes}."
        )
    return head


def read_range(file: DriveFile, head: NeedleHead, start: int, length: int) -> memoryview:
    """Bytes `[start, start + length)` of a needle's payload, verified. Blocking.

    Raises ShardDamagedError when a block is bad or the file ends before it, OSError when the drive fails.
    """
    assert start >= 0 and length > 0 and start + length <= head.shard_bytes
    first = start // CHECK_BLOCK_BYTES
    base = first * CHECK_BLOCK_BYTES
    stop = min(head.shard_bytes, -(-(start + length) // CHECK_BLOCK_BYTES) * CHECK_BLOCK_BYTES)
    data = file.read(head.offset + head.payload_start + base, stop - base)
    if len(data) != stop - base:
        raise ShardDamagedError(f"Volume {head.volume_id:016x} ends inside the needle at byte {head.offset}.")
    _verify(data, head, first)
    return memoryview(data)[start - base : start - base + length]


def read_range_into(file: DriveFile, head: NeedleHead, start: int, into: memoryview) -> bool:
    """Fill `into` with whole blocks of a needle's payload from `start`, past the page cache, verified. Blocking.

    False, and nothing was done, when the file can only be read through the page cache. Raises as `read_range`.
    """
    assert start % CHECK_BLOCK_BYTES == 0 and start + len(into) <= head.shard_bytes
    count = file.read_into(head.offset + head.payload_start + start, into)
    if count is None:
        return False
    if count != len(into):
        raise ShardDamagedError(f"Volume {head.volume_id:016x} ends inside the needle at byte {head.offset}.")
    _verify(into, head, start // CHECK_BLOCK_BYTES)
    return True


def _verify(data: Buffer, head: NeedleHead, first: int) -> None:
    bad = verify_blocks(data, head.sums, first, head.stripe_id, head.shard_index)
    if bad is not None:
        raise ShardDamagedError(
            f"Block {bad} of the needle at byte {head.offset} of volume {head.volume_id:016x} "
            "fails its checksum."
        )


def read_range_nowait(
    file: DriveFile, head: NeedleHead, payload_at: int, start: int, length: int
) -> memoryview | None:
    """As `read_range`, from the page cache alone: None when it would block, and when anything is wrong.

    For the loop. What is wrong is for the blocking read to find again and report. `payload_at` is
    `head.offset + head.payload_start`, which the caller keeps because this is called for every small read.
    """
    first = start // CHECK_BLOCK_BYTES
    base = first * CHECK_BLOCK_BYTES
    end = start + length
    stop = min(head.shard_bytes, (end + CHECK_BLOCK_BYTES - 1) // CHECK_BLOCK_BYTES * CHECK_BLOCK_BYTES)
    try:
        data = file.read_nowait(payload_at + base, stop - base)
    except OSError:
        return None
    if data is None or len(data) != stop - base:
        return None
    if verify_blocks(data, head.sums, first, head.stripe_id, head.shard_index) is not None:
        return None
    return memoryview(data)[start - base : end - base]
