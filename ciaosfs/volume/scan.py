"""Walking through a volume by its needles' heads, for recovery: what is in a log when nothing else knows.

Each head says where the next needle begins. Where no good head is (a crash tore the tail, or lost a write
between two that arrived) the walk goes on at the next place a needle may begin and its mark is found. The
payloads are skipped, so bytes of a file that look like a needle are not taken for one, unless the head before
them was lost; and even those would have to name this store, this volume and their own place.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ciaosfs.base.errors import CiaosError, ShardDamagedError
from ciaosfs.base.limits import (
    KIB,
    MIB,
    NEEDLE_ALIGN,
    NEEDLE_ALIGN_LARGE,
    STRIPE_PAYLOAD_BYTES_MAX,
    VOLUME_SUPERBLOCK_BYTES,
)
from ciaosfs.base.types import VolumeKind
from ciaosfs.codec.needle import (
    FIXED_HEAD_BYTES,
    NEEDLE_MAGIC,
    NeedleHead,
    NeedleKind,
    decode_head,
    head_bytes_needed,
    needle_bytes_for,
)
from ciaosfs.drive.interface import DriveFile
from ciaosfs.volume.files import VolumeFiles
from ciaosfs.volume.reader import read_range

log = logging.getLogger(__name__)

_WINDOW_BYTES = 64 * KIB
"""Read at a time while needles lie close together: holds dozens of small commits."""
_PEEK_BYTES = 4 * KIB
"""Read at a time after a large payload was skipped."""
_SEARCH_BYTES = 1 * MIB
"""Read at a time while looking for a mark; less at first, it is mostly near."""


def scan_needles(file: DriveFile, store_id: bytes, volume_id: int) -> Iterator[NeedleHead]:
    """Yield every needle of a volume whose head is whole, in the order of their offsets. Blocking.

    Payloads are not read; one may be torn although its head is whole. Raises OSError when the drive fails and
    StoreError when a newer ciaosfs wrote a needle.
    """
    window = _Window(file)
    size = file.size()
    at = VOLUME_SUPERBLOCK_BYTES
    while at + FIXED_HEAD_BYTES <= size:
        try:
            wanted = head_bytes_needed(window.bytes_at(at, FIXED_HEAD_BYTES))
            head = decode_head(window.bytes_at(at, wanted), store_id=store_id, volume_id=volume_id, offset=at)
        except ShardDamagedError:
            boundary = -(-at // NEEDLE_ALIGN_LARGE) * NEEDLE_ALIGN_LARGE
            if boundary > at and not window.bytes_at(at, boundary - at).tobytes().strip(b"\0"):
                at = boundary  # nothing was lost: a large needle comes next
                continue
            found = _next_mark(file, at + NEEDLE_ALIGN, size)
            if found is None:
                return
            at = found
        else:
            yield head
            at += head.needle_bytes


def claimed_end(file: DriveFile, store_id: bytes, volume_id: int, start: int) -> int:
    """Where the needles of a data volume end that begin at `start`, the end of one, or behind it; 0 when there are none.

    That may be beyond the end of the file: a crash keeps the head of a needle and takes the rest, the file's length too. Its
    place is taken all the same, for it is given back as a whole. Blocking; reads the last shard's worth at most. Raises
    OSError, and StoreError when a newer ciaosfs wrote a needle.
    """
    size = file.size()
    longest = needle_bytes_for(STRIPE_PAYLOAD_BYTES_MAX)
    base = max(VOLUME_SUPERBLOCK_BYTES, start, (size - longest) // NEEDLE_ALIGN * NEEDLE_ALIGN)
    if base >= size:
        return 0
    content = bytes(file.read(base, size - base))
    data = memoryview(content)
    end = 0
    at = content.find(NEEDLE_MAGIC)
    while 0 <= at <= len(data) - FIXED_HEAD_BYTES:
        following = at + 1
        if at % NEEDLE_ALIGN == 0:
            try:
                head = decode_head(
                    data[at : at + head_bytes_needed(data[at:])],
                    store_id=store_id,
                    volume_id=volume_id,
                    offset=base + at,
                )
            except ShardDamagedError:
                pass  # bytes of a file that look like a head, or a torn one
            else:
                following = at + head.needle_bytes
                end = base + following
        at = content.find(NEEDLE_MAGIC, following)
    return end


def read_payload(file: DriveFile, head: NeedleHead) -> bytes:
    """The whole payload of a needle, verified. Blocking. Raises ShardDamagedError, OSError."""
    if head.shard_bytes == 0:
        return b""
    return bytes(read_range(file, head, 0, head.shard_bytes))


def kind_of_volume(files: VolumeFiles, volume_id: int) -> VolumeKind | None:
    """What a volume is for, by its superblock, or by what is in it when that is damaged. Blocking.

    None when it cannot be told now: its drive is away or fails, or a newer ciaosfs made it.
    """
    try:
        with files.reading(volume_id) as (volume, file):
            if volume.superblock is not None:
                return volume.superblock.kind
            kinds = {head.kind for head in scan_needles(file, files.store_id, volume_id)}
    except (CiaosError, OSError) as error:
        log.warning("volume %016x is passed over: %s", volume_id, error)
        return None
    return VolumeKind.DATA if kinds <= {NeedleKind.SHARD} else VolumeKind.LOG


class _Window:
    """A piece of the file in memory, moved forward as the scan goes."""

    def __init__(self, file: DriveFile) -> None:
        self._file = file
        self._start = 0
        self._data: bytes | bytearray = b""

    def bytes_at(self, offset: int, length: int) -> memoryview:
        """`length` bytes at `offset`, fewer at the end of the file."""
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._data):
            is_near = offset <= self._start + len(self._data)
            self._data = self._file.read(offset, max(length, _WINDOW_BYTES if is_near else _PEEK_BYTES))
            self._start = offset
            begin = 0
        return memoryview(self._data)[begin : begin + length]


def _next_mark(file: DriveFile, start: int, size: int) -> int | None:
    """The next offset from `start` on, on a needle's boundary, that holds the mark of a needle."""
    length = _WINDOW_BYTES
    while start < size:
        chunk = file.read(start, min(length, size - start))
        length = _SEARCH_BYTES
        if not chunk:
            return None
        at = chunk.find(NEEDLE_MAGIC)
        while at >= 0:
            if at % NEEDLE_ALIGN == 0:
                return start + at
            at = chunk.find(NEEDLE_MAGIC, at + 1)
        # A mark begins on a boundary, and so do the chunks: none is cut in two.
        start += len(chunk) - len(chunk) % NEEDLE_ALIGN or NEEDLE_ALIGN
    return None
