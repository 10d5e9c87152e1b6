"""The first 4 KiB of every volume: whose it is and what it is for, so that a swapped file is recognised.

Written once when the volume is created, never changed. The byte table is in FORMAT.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ciaosfs.base.errors import ShardDamagedError, StoreError
from ciaosfs.base.limits import VOLUME_SUPERBLOCK_BYTES
from ciaosfs.base.types import Buffer, VolumeKind
from ciaosfs.codec.checksum import hash64

SUPERBLOCK_MAGIC = b"CIAOSVOL"
SUPERBLOCK_VERSION = 1

_FIELDS = struct.Struct("<8sHBxI16s16sQQ")
_SUM = struct.Struct("<Q")
_SUM_AT = VOLUME_SUPERBLOCK_BYTES - _SUM.size


@dataclass(frozen=True, slots=True)
class Superblock:
    """The identity of one volume. `store_id` and `drive_uuid` are 16 bytes, `created_ns` is wall-clock."""

    kind: VolumeKind
    store_id: bytes
    drive_number: int
    drive_uuid: bytes
    volume_id: int
    created_ns: int


def encode_superblock(superblock: Superblock) -> bytes:
    """Return the VOLUME_SUPERBLOCK_BYTES that start the volume."""
    assert len(superblock.store_id) == 16 and len(superblock.drive_uuid) == 16
    fields = _FIELDS.pack(
        SUPERBLOCK_MAGIC,
        SUPERBLOCK_VERSION,
        superblock.kind,
        superblock.drive_number,
        superblock.store_id,
        superblock.drive_uuid,
        superblock.volume_id,
        superblock.created_ns,
    )
    body = fields.ljust(_SUM_AT, b"\0")
    return body + _SUM.pack(hash64(body))


def decode_superblock(
    buf: Buffer,
    *,
    store_id: bytes | None = None,
    drive_uuid: bytes | None = None,
    volume_id: int | None = None,
) -> Superblock:
    """Return the superblock at the start of `buf`; what is given by keyword must be what it says.

    Raises ShardDamagedError when it is torn, flipped, foreign or another volume's, and StoreError when a
    newer ciaosfs wrote it.
    """
    head = memoryview(buf).cast("B")[:VOLUME_SUPERBLOCK_BYTES]
    if len(head) < VOLUME_SUPERBLOCK_BYTES:
        raise ShardDamagedError(f"a volume has {len(head)} bytes, less than its superblock")
    magic, version, kind, drive_number, store, drive, volume, created_ns = _FIELDS.unpack_from(head)
    if magic != SUPERBLOCK_MAGIC:
        raise ShardDamagedError("a volume does not begin with the mark of a ciaosfs volume")
    if _SUM.unpack_from(head, _SUM_AT)[0] != hash64(head[:_SUM_AT]):
        raise ShardDamagedError("the superblock of a volume fails its checksum")
    if version > SUPERBLOCK_VERSION:
        raise StoreError(
            f"Volume {volume:016x} has format version {version}, newer than this ciaosfs "
            f"({SUPERBLOCK_VERSION}): use the one that wrote it."
        )
    if version < 1 or kind not in iter(VolumeKind):
        raise ShardDamagedError(
            f"the superblock of volume {volume:016x} has version {version} and kind {kind}"
        )
    if store_id is not None and store != store_id:
        raise ShardDamagedError(
            f"volume {volume:016x} belongs to store {store.hex()}, not to {store_id.hex()}"
        )
    if drive_uuid is not None and drive != drive_uuid:
        raise ShardDamagedError(
            f"volume {volume:016x} belongs to drive {drive.hex()}, not to {drive_uuid.hex()}"
        )
    if volume_id is not None and volume != volume_id:
        raise ShardDamagedError(f"the file of volume {volume_id:016x} holds volume {volume:016x}")
    return Superblock(VolumeKind(kind), store, drive_number, drive, volume, created_ns)
