"""The records of the commit log, and which of those found on the drives are the history. Pure.

A record, little-endian:

| bytes | field | protects against |
|---|---|---|
| 8 | magic "CIAOSLOG" | bytes that are something else |
| 2 | format, 1 | a reader that is too old |
| 2 | 1: the changeset is a zstd frame, 0: as it is | |
| 4 | schema.FORMAT of the changeset | tables it does not fit |
| 8 | sequence | |
| 8 | epoch | two histories taken for one |
| 8 | parent id | a gap in the history |
| 8 | commit id | |
| 8 | time in ns | |
| 8 | length of the changeset | a frame that claims to be huge |
| 8 | length of what is stored of it | a torn record |
| 8 | xxh3 of all before and of the stored bytes | flipped bits, besides the checksums of the needle |
| .. | the changeset | |
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ciaosfs.base import limits
from ciaosfs.base.errors import DamagedError, LogDamagedError, StoreError
from ciaosfs.base.types import Buffer
from ciaosfs.codec.checksum import hash64
from ciaosfs.codec.compression import compress_bytes, decompress_bytes
from ciaosfs.meta import schema
from ciaosfs.meta.state import State

MAGIC: Final = b"CIAOSLOG"
FORMAT: Final = 1
CHANGESET_BYTES_MAX: Final = 16 * limits.NEEDLE_PAYLOAD_BYTES_MAX
"""Of a changeset before compression: far above what COMMIT_CHANGESET_BYTES lets a commit grow to."""
_HEAD: Final = struct.Struct("<8sHHIqqqqqQQ")
_SUM: Final = struct.Struct("<Q")
_COMPRESS_BYTES_MIN: Final = 512


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """One commit: its place in the history (see `State`) and what it changed (a session changeset).

    `stored` is the changeset itself, or, when `packed_from` is not 0, a zstd frame of that many bytes of it: a long
    history is read at once when a database is rebuilt, and packed it takes a fifth of the memory.
    """

    sequence: int
    epoch: int
    parent_id: int
    commit_id: int
    time_ns: int
    stored: bytes
    packed_from: int = 0

    @property
    def changeset(self) -> bytes:
        """What the commit changed; unpacked at each call. LogDamagedError."""
        if not self.packed_from:
            return self.stored
        try:
            changeset = decompress_bytes(self.stored, CHANGESET_BYTES_MAX)
        except DamagedError as error:
            raise LogDamagedError(f"Commit {self.sequence} cannot be decompressed: {error}.") from error
        if len(changeset) != self.packed_from:
            raise LogDamagedError(
                f"Commit {self.sequence} has {len(changeset)} bytes instead of {self.packed_from}."
            )
        return changeset

    @classmethod
    def make(cls, state: State, changeset: bytes) -> CommitRecord:
        """The record of the commit that `state` stands for."""
        return cls(state.sequence, state.epoch, state.parent_id, state.commit_id, state.time_ns, changeset)


def encode_commit(record: CommitRecord) -> bytes:
    """The record as bytes. Takes about 3 us per KiB: for a worker thread when it is large."""
    stored, packed_from = record.stored, record.packed_from
    if not packed_from and len(stored) >= _COMPRESS_BYTES_MIN:
        stored, packed_from = compress_bytes(stored), len(stored)
    head = _HEAD.pack(
        MAGIC,
        FORMAT,
        packed_from > 0,
        schema.FORMAT,
        record.sequence,
        record.epoch,
        record.parent_id,
        record.commit_id,
        record.time_ns,
        packed_from or len(stored),
        len(stored),
    )
    return b"".join((head, _SUM.pack(hash64(head + stored)), stored))


def decode_commit(data: Buffer) -> CommitRecord:
    """The record in `data`. LogDamagedError when it is none, or damaged; StoreError when it is newer."""
    view = memoryview(data).cast("B")
    start = _HEAD.size + _SUM.size
    if len(view) < start or bytes(view[: len(MAGIC)]) != MAGIC:
        raise LogDamagedError("A needle of the commit log holds no commit.")
    head = bytes(view[: _HEAD.size])
    (
        _,
        version,
        is_packed,
        tables,
        sequence,
        epoch,
        parent_id,
        commit_id,
        time_ns,
        length,
        stored_length,
    ) = _HEAD.unpack(head)
    if version > FORMAT or tables > schema.FORMAT:
        raise StoreError(f"Commit {sequence} was written by a newer ciaosfs: use that version.")
    stored = bytes(view[start : start + stored_length])
    if _SUM.unpack_from(view, _HEAD.size)[0] != hash64(head + stored) or len(stored) != stored_length:
        raise LogDamagedError(f"Commit {sequence} fails its checksum.")
    return CommitRecord(sequence, epoch, parent_id, commit_id, time_ns, stored, length if is_packed else 0)


def newest(records: Iterable[CommitRecord]) -> CommitRecord | None:
    """The tip of the history: the highest (epoch, sequence, time); None without records.

    Where two records build on one commit, the later epoch is right: whoever began it had looked at the drives
    and went on from there. Within an epoch one process counts up; it uses a sequence number again only when
    the append of a record failed, and then the later attempt is the one that its successors build on.
    """
    return max(records, key=lambda record: (record.epoch, record.sequence, record.time_ns), default=None)


def choose_chain(records: Iterable[CommitRecord], base: State) -> list[CommitRecord] | None:
    """The commits from `base` (not included) to the tip, in order; copies of one commit count once.

    [] when `base` is the tip, or when nothing was ever committed. None when the tip does not lead back to
    `base`: a commit between them is missing, or `base` is on a branch that was given up, or the drives lost
    it.
    """
    by_id: dict[int, CommitRecord] = {}
    for record in records:
        known = by_id.setdefault(record.commit_id, record)
        if known != record:
            raise LogDamagedError(f"There are two different commits {record.sequence} with one identity.")
    tip = newest(by_id.values())
    if tip is None:
        return [] if base.sequence == 0 else None
    chain: list[CommitRecord] = []
    commit_id, sequence = tip.commit_id, tip.sequence
    while commit_id != base.commit_id:
        step = by_id.get(commit_id)
        if step is None or step.sequence != sequence or sequence <= base.sequence:
            return None
        chain.append(step)
        commit_id, sequence = step.parent_id, sequence - 1
    if sequence != base.sequence:
        return None
    chain.reverse()
    return chain
