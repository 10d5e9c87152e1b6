"""The bytes of an image of the metadata: its root, and the payload of its stripes. Pure; byte tables in FORMAT.md.

An *image* is a whole copy of the metadata as of one commit: a compact SQLite database, cut into *pieces* that are
compressed one by one. Pieces are gathered into payloads of stripes; the *root*, a needle in the log, names the commit,
and for each stripe where its shards lay when the root was written, which bytes of the database it holds, and the
checksum of its payload. So a root and its stripes are enough to begin from, whatever else is lost.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from ciaosfs.base import limits
from ciaosfs.base.errors import DamagedError, LogDamagedError, StoreError
from ciaosfs.base.types import Buffer, ShardPlace, StripeKind, StripeRecord
from ciaosfs.codec.checksum import hash64
from ciaosfs.codec.compression import decompress_bytes
from ciaosfs.meta import schema
from ciaosfs.meta.contents import Places
from ciaosfs.meta.state import State

MAGIC: Final = b"CIAOSIMG"
FORMAT: Final = 1
_HEAD: Final = struct.Struct("<8sHHI16sqqqqqqqQQII")
_SUM: Final = struct.Struct("<Q")
_STRIPE: Final = struct.Struct("<QQQHHHHQQQ")
_PLACE: Final = struct.Struct("<HHIQQ")
_COUNT: Final = struct.Struct("<I")
_PIECE: Final = struct.Struct("<II")
_START: Final = _HEAD.size + _SUM.size


@dataclass(frozen=True, slots=True)
class ImageStripe:
    """One stripe of an image: bytes `[offset, offset + length)` of the database; `checksum` is xxh3 of the payload."""

    record: StripeRecord
    offset: int
    length: int
    checksum: int


@dataclass(frozen=True, slots=True)
class ImageRoot:
    """What an image is of, and where it is. `tables` is `schema.FORMAT` of the database, `inodes` for people."""

    state: State
    tables: int
    database_bytes: int
    inodes: int
    stripes: tuple[ImageStripe, ...]

    @property
    def stored_bytes(self) -> int:
        """Payload of all its stripes."""
        return sum(stripe.record.payload_bytes for stripe in self.stripes)

    def places(self) -> Places:
        """Where each of its shards lies."""
        places: Places = {}
        for stripe in self.stripes:
            record = stripe.record
            for index in range(record.data_count + record.parity_count):
                places[record.stripe_id, index] = None
            for place in record.places:
                places[record.stripe_id, place.shard_index] = place
        return places

    def at(self, places: Places) -> ImageRoot:
        """The same image with its shards at other places."""
        found: dict[int, list[ShardPlace]] = {stripe.record.stripe_id: [] for stripe in self.stripes}
        for (stripe_id, _), place in sorted(places.items()):
            if place is not None:
                found[stripe_id].append(place)
        return self._with_places(found)

    def with_records(self, records: Mapping[int, StripeRecord]) -> ImageRoot:
        """The same image with its shards where these stripes have them, by stripe id."""
        return self._with_places({stripe_id: record.places for stripe_id, record in records.items()})

    def _with_places(self, places: Mapping[int, Sequence[ShardPlace]]) -> ImageRoot:
        moved = [
            replace(stripe, record=replace(stripe.record, places=tuple(places[stripe.record.stripe_id])))
            for stripe in self.stripes
        ]
        return replace(self, stripes=tuple(moved))


def encode_root(root: ImageRoot) -> bytes:
    """The root as bytes: about 70 and 24 for each shard, per stripe."""
    state = root.state
    parts: list[bytes] = []
    for stripe in root.stripes:
        record = stripe.record
        parts.append(
            _STRIPE.pack(
                record.stripe_id,
                record.payload_bytes,
                record.shard_bytes,
                record.data_count,
                record.parity_count,
                len(record.places),
                0,
                stripe.offset,
                stripe.length,
                stripe.checksum,
            )
        )
        parts += [
            _PLACE.pack(place.shard_index, 0, 0, place.volume_id, place.offset) for place in record.places
        ]
    entries = b"".join(parts)
    head = _HEAD.pack(
        MAGIC,
        FORMAT,
        0,
        root.tables,
        state.store_id,
        state.sequence,
        state.epoch,
        state.parent_id,
        state.commit_id,
        state.time_ns,
        state.log_volume_min,
        state.name_seed,
        root.database_bytes,
        root.inodes,
        len(root.stripes),
        len(entries),
    )
    return b"".join((head, _SUM.pack(hash64(head + entries)), entries))


def decode_root(data: Buffer) -> ImageRoot:
    """The root in `data`. LogDamagedError when it is none, or damaged; StoreError when it is newer."""
    raw = bytes(data)
    if len(raw) < _START or raw[: len(MAGIC)] != MAGIC:
        raise LogDamagedError("A needle of the commit log holds no image root.")
    (
        _,
        version,
        _,
        tables,
        store_id,
        sequence,
        epoch,
        parent_id,
        commit_id,
        time_ns,
        log_volume_min,
        name_seed,
        database_bytes,
        inodes,
        count,
        entries_bytes,
    ) = _HEAD.unpack_from(raw)
    if version > FORMAT or tables > schema.FORMAT:
        raise StoreError(f"The image of commit {sequence} was written by a newer ciaosfs: use that version.")
    entries = raw[_START : _START + entries_bytes]
    if _SUM.unpack_from(raw, _HEAD.size)[0] != hash64(raw[: _HEAD.size] + entries):
        raise LogDamagedError(f"The root of the image of commit {sequence} fails its checksum.")
    state = State(store_id, name_seed, sequence, epoch, parent_id, time_ns, log_volume_min)
    stripes = tuple(_stripes(entries, count))
    ends = [0, *(stripe.offset + stripe.length for stripe in stripes)]
    is_whole = ends[-1] == database_bytes and all(
        stripe.offset == end for stripe, end in zip(stripes, ends, strict=False)
    )
    if commit_id != state.commit_id or not is_whole or any(end <= start for start, end in pairwise(ends)):
        raise LogDamagedError(f"The root of the image of commit {sequence} contradicts itself.")
    return ImageRoot(state, tables, database_bytes, inodes, stripes)


def _stripes(entries: bytes, count: int) -> Iterator[ImageStripe]:
    at = 0
    for _ in range(count):
        try:
            fields = _STRIPE.unpack_from(entries, at)
            at += _STRIPE.size
            stripe_id, payload_bytes, shard_bytes, data_count, parity_count, place_count = fields[:6]
            offset, length, checksum = fields[7:]
            places = []
            for _ in range(place_count):
                index, _, _, volume_id, place_offset = _PLACE.unpack_from(entries, at)
                at += _PLACE.size
                places.append(ShardPlace(index, volume_id, place_offset))
        except struct.error as error:
            raise LogDamagedError("The root of an image ends before its last stripe.") from error
        record = StripeRecord(
            stripe_id, StripeKind.IMAGE, data_count, parity_count, payload_bytes, shard_bytes, tuple(places)
        )
        yield ImageStripe(record, offset, length, checksum)


def payload_bytes_for(stored: Sequence[int]) -> int:
    """How long the payload of a stripe with pieces of these stored lengths is."""
    return _COUNT.size + len(stored) * _PIECE.size + sum(stored)


def encode_payload(pieces: Sequence[tuple[bytes, int]]) -> bytes:
    """The payload of one stripe: (zstd frame, length of what is in it) for each piece."""
    table = [_PIECE.pack(len(frame), length) for frame, length in pieces]
    payload = b"".join((_COUNT.pack(len(pieces)), *table, *(frame for frame, _ in pieces)))
    assert len(payload) <= limits.STRIPE_PAYLOAD_BYTES_MAX
    return payload


def decode_payload(payload: Buffer, stripe: ImageStripe) -> list[bytes]:
    """The pieces, in order: `stripe.length` bytes of the database. LogDamagedError when they are not that.

    About 2 ms per MiB of the database: for a worker thread.
    """
    view = memoryview(payload).cast("B")
    if hash64(view) != stripe.checksum:
        raise LogDamagedError(f"Stripe {stripe.record.stripe_id} of an image fails its checksum.")
    (count,) = _COUNT.unpack_from(view)
    at = payload_bytes_for([0] * count)
    pieces = []
    try:
        for number in range(count):
            stored, length = _PIECE.unpack_from(view, _COUNT.size + number * _PIECE.size)
            piece = decompress_bytes(view[at : at + stored], limits.IMAGE_PIECE_BYTES)
            if len(piece) != length:
                raise DamagedError(f"a piece has {len(piece)} bytes instead of {length}")
            pieces.append(piece)
            at += stored
    except (DamagedError, struct.error) as error:
        raise LogDamagedError(f"Stripe {stripe.record.stripe_id} of an image is damaged: {error}.") from error
    if sum(map(len, pieces)) != stripe.length:
        raise LogDamagedError(f"Stripe {stripe.record.stripe_id} of an image holds another part of it.")
    return pieces
