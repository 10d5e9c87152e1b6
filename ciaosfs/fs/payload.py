"""From dirty segments to the payload of a stripe: which bytes go in, compressed or not, and where they come to lie;
and back.

Runs in a worker thread (or inline for little data): it sees immutable bytes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ciaosfs.base import limits
from ciaosfs.base.errors import DamagedError
from ciaosfs.base.types import Buffer, Codec, Extent
from ciaosfs.codec.compression import compress_block, decompress_bytes


@dataclass(slots=True)
class Cargo:
    """The dirty bytes of one file that share a flight: (file offset, bytes) in order, and whether to compress."""

    ino: int
    parts: list[tuple[int, Buffer]]
    compress: bool


@dataclass(slots=True)
class Load:
    """A payload ready to be written: `pieces` concatenated are its bytes; `extents[i]` maps cargo i into it.

    The extents carry stripe id 0 until the stripe is written.
    """

    pieces: list[Buffer] = field(default_factory=list)
    extents: list[list[Extent]] = field(default_factory=list)
    length: int = 0


def build_load(cargos: Sequence[Cargo]) -> Load:
    """Lay out the payload: each file's bytes in file order, one extent per contiguous raw run or compressed block."""
    load = Load()
    for cargo in cargos:
        extents: list[Extent] = []
        for offset, data in _gathered(cargo.parts):
            if cargo.compress:
                _add_blocks(load, extents, offset, data)
            else:
                _add_raw(load, extents, offset, data)
        load.extents.append(extents)
    return load


def _gathered(parts: Sequence[tuple[int, Buffer]]) -> list[tuple[int, Buffer]]:
    """Join neighbours that are smaller than a compression block: appends come in crumbs."""
    runs: list[tuple[int, Buffer]] = []
    crumbs: list[Buffer] = []
    crumbs_start = crumbs_bytes = 0

    def sweep() -> None:
        if crumbs:
            runs.append((crumbs_start, crumbs[0] if len(crumbs) == 1 else b"".join(crumbs)))
            crumbs.clear()

    for offset, data in parts:
        length = len(data)
        joins = bool(crumbs) and offset == crumbs_start + crumbs_bytes
        if joins and crumbs_bytes + length <= limits.COMPRESS_BLOCK_BYTES:
            crumbs.append(data)
            crumbs_bytes += length
            continue
        sweep()
        if length < limits.COMPRESS_BLOCK_BYTES:
            crumbs.append(data)
            crumbs_start, crumbs_bytes = offset, length
        else:
            runs.append((offset, data))
    sweep()
    return runs


def _add_raw(load: Load, extents: list[Extent], offset: int, data: Buffer) -> None:
    length = len(data)
    last = extents[-1] if extents else None
    if (
        last is not None
        and last.codec == Codec.RAW
        and last.offset + last.length == offset
        and last.stripe_offset + last.stored_length == load.length
    ):
        total = last.length + length
        extents[-1] = Extent(last.offset, total, 0, last.stripe_offset, total, Codec.RAW, 0)
    else:
        extents.append(Extent(offset, length, 0, load.length, length, Codec.RAW, 0))
    load.pieces.append(data)
    load.length += length


def _add_blocks(load: Load, extents: list[Extent], offset: int, data: Buffer) -> None:
    """Add `data` block by block; raw neighbours stay one piece, so that a wholly raw buffer is not cut up."""
    block = limits.COMPRESS_BLOCK_BYTES
    length = len(data)
    view = memoryview(data)
    raw_from = 0
    for at in range(0, length, block):
        stop = min(at + block, length)
        packed = compress_block(view[at:stop])
        if packed is None:
            continue
        if raw_from < at:
            _add_raw(load, extents, offset + raw_from, view[raw_from:at])
        extents.append(Extent(offset + at, stop - at, 0, load.length, len(packed), Codec.ZSTD, 0))
        load.pieces.append(packed)
        load.length += len(packed)
        raw_from = stop
    if raw_from == 0:
        _add_raw(load, extents, offset, data)
    elif raw_from < length:
        _add_raw(load, extents, offset + raw_from, view[raw_from:])


def unpack(stored: Buffer, start: int, length: int) -> Buffer:
    """Bytes `[start, start + length)` of a compressed block; DamagedError when it has fewer.

    A block is as long as what was dirty together, up to COMPRESS_BLOCK_BYTES: its extent, which may have been cut
    since, does not know its whole length.
    """
    plain = decompress_bytes(stored, limits.COMPRESS_BLOCK_BYTES)
    if len(plain) < start + length:
        raise DamagedError(f"a compressed block has {len(plain)} bytes, its extent needs {start + length}")
    return memoryview(plain)[start : start + length]
