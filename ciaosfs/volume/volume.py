"""One volume being appended to: its states, the position of its tail, and the blocking writes into it.

Positions are taken in the loop, synchronously, so writes of different needles run in parallel threads without
overlapping; the tail is where the next one goes. Bytes whose write failed, and what a crash tore, are dead
space: nothing refers to them. States, and the only ways between them:

    OPEN -> SEALED      full, the drive left or failed, or the session ended with it as a log volume
    SEALED -> OPEN      a data volume is continued by a later session
    SEALED -> COMPACTING -> DEAD, SEALED -> DEAD    nothing in it is referred to any more
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from ciaosfs.base import clock, limits
from ciaosfs.base.types import Buffer, VolumeKind
from ciaosfs.codec.needle import needle_align_for, needle_bytes_for
from ciaosfs.codec.superblock import Superblock, encode_superblock
from ciaosfs.drive.interface import Drive, DriveFile
from ciaosfs.drive.local import volume_name


class VolumeState(StrEnum):
    """See the module; stored in the metadata, not in the volume."""

    OPEN = "open"
    SEALED = "sealed"
    COMPACTING = "compacting"
    DEAD = "dead"


TRANSITIONS = {
    VolumeState.OPEN: {VolumeState.SEALED},
    VolumeState.SEALED: {VolumeState.OPEN, VolumeState.COMPACTING, VolumeState.DEAD},
    VolumeState.COMPACTING: {VolumeState.SEALED, VolumeState.DEAD},
    VolumeState.DEAD: set[VolumeState](),
}

_BYTES_MAX = {VolumeKind.DATA: limits.VOLUME_DATA_BYTES_MAX, VolumeKind.LOG: limits.VOLUME_LOG_BYTES_MAX}


class Volume:
    """An open volume and the descriptor that writes it, which is closed when the volume is sealed and at
    rest.

    All attributes belong to the loop; worker threads get the file and an offset.
    """

    def __init__(
        self, volume_id: int, drive_number: int, kind: VolumeKind, file: DriveFile, tail: int
    ) -> None:
        assert tail >= limits.VOLUME_SUPERBLOCK_BYTES
        self.volume_id = volume_id
        self.drive_number = drive_number
        self.kind = kind
        self.file = file
        self.state = VolumeState.OPEN
        self.preallocated = 0
        """Room up to here was reserved on the drive; 0 when nothing was. Set by the thread that did it."""
        self.reserve_step = 0
        """How far ahead of the tail room is reserved; 0 in data volumes."""
        self.reserve_to = 0
        """Room up to here was reserved or is about to be."""
        self.is_dirty = False
        """Written since the last sync of it began: it may not be closed."""
        self.is_sync_failed = False
        """A sync of it raised: what was written since the one before counts as lost."""
        self._tail = tail
        self._writes = 0

    @property
    def tail(self) -> int:
        """Where the next needle may begin; what a reader of the whole volume needs to look at."""
        return self._tail

    @property
    def claimed(self) -> int:
        """Bytes of the drive that the volume has, written or reserved."""
        return max(self.preallocated, self._tail)

    @property
    def held(self) -> int:
        """Bytes reserved on the drive and not taken yet."""
        return max(0, self.preallocated - self._tail)

    @property
    def is_being_written(self) -> bool:
        return self._writes > 0

    @property
    def writes(self) -> int:
        """Writes and holds under way."""
        return self._writes

    def has_room(self, shard_bytes: int) -> bool:
        """Whether a needle with this payload still fits. The first one always does, however large."""
        start = self._start(shard_bytes)
        end = start + needle_bytes_for(shard_bytes)
        return self.state is VolumeState.OPEN and (
            end <= _BYTES_MAX[self.kind] or self._tail == limits.VOLUME_SUPERBLOCK_BYTES
        )

    def take(self, shard_bytes: int) -> int:
        """Take the place of a needle with this payload; returns its offset. Pair with `wrote`."""
        assert self.has_room(shard_bytes)
        start = self._start(shard_bytes)
        self._tail = start + needle_bytes_for(shard_bytes)
        self._writes += 1
        return start

    def hold(self) -> None:
        """Keep the descriptor open for a write into a place that was taken before. Pair with `wrote`."""
        self._writes += 1

    def wrote(self) -> None:
        """A write whose place was taken, or for which the volume was held, has ended, well or badly."""
        self._writes -= 1
        assert self._writes >= 0
        self.close_if_done()

    def enter(self, state: VolumeState) -> None:
        """Change the state along TRANSITIONS."""
        assert state in TRANSITIONS[self.state], f"a volume does not go from {self.state} to {state}"
        self.state = state
        self.close_if_done()

    def close_if_done(self) -> None:
        """Close the descriptor once nothing more is written or synced through it."""
        if self.state is not VolumeState.OPEN and not self._writes and not self.is_dirty:
            self.file.close()

    def _start(self, shard_bytes: int) -> int:
        unit = needle_align_for(shard_bytes)
        return -(-self._tail // unit) * unit


class Hold:
    """A blocking call on a volume's file that is under way; the descriptor stays open as long.

    Over when `let_go` was called twice: by the loop when it has taken note of what came of the call, and when no thread
    is in the call any more. A call that hangs may end long after it was given up.
    """

    __slots__ = ("_left", "volume")

    def __init__(self, volume: Volume, *, is_taken: bool = False) -> None:
        """`is_taken`: `Volume.take` was called for it already."""
        self.volume = volume
        self._left = 2
        if not is_taken:
            volume.hold()

    def let_go(self) -> None:
        self._left -= 1
        if not self._left:
            self.volume.wrote()


def create_volume(drive: Drive, store_id: bytes, volume_id: int, kind: VolumeKind) -> Volume:
    """Make a volume and write its superblock. Blocking. Raises DriveGoneError, OSError.

    Its directory entry survives a crash on return, its superblock does after the first sync.
    """
    file = drive.create(volume_name(volume_id))
    try:
        superblock = Superblock(kind, store_id, drive.number, drive.uuid, volume_id, clock.now_ns())
        file.write(0, [encode_superblock(superblock)])
    except BaseException:
        file.close()
        raise
    return Volume(volume_id, drive.number, kind, file, limits.VOLUME_SUPERBLOCK_BYTES)


def continue_volume(drive: Drive, volume_id: int, kind: VolumeKind, known_end: int = 0) -> Volume:
    """Open a volume of an earlier session to append to it. Blocking. Raises DriveGoneError, OSError.

    Writing goes on at the file's length, rounded up to whole pages: after a crash that is behind everything
    that arrived, whatever of it is whole. And not before `known_end`, for a place that is taken will be given back as a
    whole: that of a shard that never arrived, of a stripe that counts, and what the head of a torn needle claims.
    """
    file = drive.open(volume_name(volume_id), writable=True)
    try:
        unit = limits.NEEDLE_ALIGN_LARGE
        tail = max(limits.VOLUME_SUPERBLOCK_BYTES, -(-max(file.size(), known_end) // unit) * unit)
    except BaseException:
        file.close()
        raise
    return Volume(volume_id, drive.number, kind, file, tail)


def write_needle(
    file: DriveFile, offset: int, head: bytes, payload: Sequence[Buffer], shard_bytes: int
) -> None:
    """Write one needle: head, payload, and zeros up to its end, so that no bytes of the file are undefined.

    Blocking. Raises OSError; any part may have been written then.
    """
    padding = needle_bytes_for(shard_bytes) - len(head) - shard_bytes
    assert padding >= 0
    parts = [head, *payload]
    if padding:
        parts.append(bytes(padding))
    file.write(offset, parts)
