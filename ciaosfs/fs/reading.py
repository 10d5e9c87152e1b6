"""Reading a file: pending bytes from memory, the rest from stripes, zeros for holes.

`read_nowait` answers from memory and the page cache alone, in the loop, and gives up (None) as soon as something
would block, or was read ahead; `read` takes the same plan to what was read ahead and to the worker threads. Between
planning and reading nothing can vanish: a stripe that is being read is pinned, so it is not given back although its
last extent may go meanwhile.
"""

from __future__ import annotations

import errno
import logging
from collections import OrderedDict
from collections.abc import Sequence

import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError, DamagedError, FsError
from ciaosfs.base.types import Buffer, Codec, Extent, StripeRecord
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.files import Handle
from ciaosfs.fs.payload import unpack
from ciaosfs.fs.readplan import Piece, plan_read
from ciaosfs.fs.reclaim import Reclaimer
from ciaosfs.meta.metadata import Metadata
from ciaosfs.stripe.store import ChunkStore

log = logging.getLogger(__name__)

INLINE_DECOMPRESS_BYTES_MAX = limits.COMPRESS_BLOCK_BYTES
"""One compressed block takes about 0.1 ms; more goes to a thread."""
AHEAD_BYTES_MIN = 2 * limits.STRIPE_PAYLOAD_BYTES_MAX
"""What is read ahead of a reader who has just begun, if the file is as long; later on twice what they have read."""
AHEAD_STEP_BYTES = 1 * limits.MIB
"""Little, so that the drives always have something to do: in steps of 4 MiB a cold read took a third longer."""
READAHEAD_EXTENTS = 256
"""About so many extents are looked at to find the next stripes, in 0.3 ms, where extents are small."""
PASSED_BYTES = 2 * limits.MIB
"""What lies so far behind the end of a read is not waited for by an earlier one any more."""
LARGE_EXTENT_BYTES = 512 * limits.KIB
"""Extents from this length on are worth reading ahead into memory."""
PIECES_MAX = 64
"""Pieces of an answer that are put together at a stretch, in about 1 ms."""
SMALL_BYTES_MAX = 128 * limits.KIB
"""An extent up to this size that is read whole is taken for a small file, whose neighbours are worth reading too."""


class Reader:
    """Reads of open files. Keeps a bounded cache of stripe records."""

    def __init__(
        self,
        meta: Metadata,
        chunks: ChunkStore,
        reclaimer: Reclaimer,
        workers: Workers,
        nursery: trio.Nursery,
    ) -> None:
        self._meta = meta
        self._chunks = chunks
        self._reclaimer = reclaimer
        self._workers = workers
        self._nursery = nursery
        self._records: OrderedDict[int, StripeRecord] = OrderedDict()
        self.record_hits = 0
        self.record_misses = 0
        """How often a stripe's record was at hand, and how often it was loaded from the metadata."""
        meta.stripes.on_moved = self.forget_record

    def read_nowait(self, handle: Handle, offset: int, size: int) -> Buffer | None:
        """Up to `size` bytes at `offset`, or None when that is for `read`. ENOENT when the inode is gone."""
        ino = handle.file.ino
        end = min(offset + size, self._file_size(ino))
        if offset >= end:
            return b""
        extents = self._meta.extents.overlapping(ino, offset, end)
        overlay = handle.file.overlay
        if not overlay and len(extents) == 1:
            extent = extents[0]
            if extent.codec == Codec.RAW and extent.offset <= offset and extent.offset + extent.length >= end:
                start = extent.stripe_offset + offset - extent.offset
                record = self.record(extent.stripe_id)
                if handle.ahead_to > offset and self._chunks.prefetcher.has(record, start):
                    return None  # `read` takes it, and reads on ahead
                found = self._chunks.read_nowait(record, start, end - offset)
                if found is not None:
                    handle.next_offset = end
                return found
        pieces = plan_read(overlay.overlapping(offset, end) if overlay else (), extents, offset, end)
        found = self._assemble_nowait(pieces)
        if found is not None:
            handle.next_offset = end
        return found

    async def read(self, handle: Handle, offset: int, size: int) -> Buffer:
        """As `read_nowait`, waiting for drives. EIO when bytes are lost beyond repair."""
        ino = handle.file.ino
        end = min(offset + size, self._file_size(ino))
        if offset >= end:
            return b""
        overlay = handle.file.overlay
        extents = self._meta.extents.overlapping(ino, offset, end)
        pieces = plan_read(overlay.overlapping(offset, end) if overlay else (), extents, offset, end)
        if offset != handle.next_offset:
            self.forget(handle)
            handle.ahead_to = 0
            handle.run_start = offset
        elif extents:
            self._read_ahead(handle, end, READAHEAD_EXTENTS * (end - offset) // len(extents))
        handle.next_offset = end
        pinned = [extent.stripe_id for extent in extents]
        for stripe_id in pinned:
            self._reclaimer.pin(stripe_id)
        try:
            return await self._assemble(pieces)
        except DamagedError as error:
            path = self._meta.dentries.path_of(ino)
            log.error("read of inode %d (%s) at %d failed: %s", ino, _printable(path), offset, error)
            raise FsError(errno.EIO, str(error)) from error
        except (CiaosError, OSError) as error:
            log.error("read of inode %d at %d failed: %s", ino, offset, error)
            raise FsError(errno.EIO, str(error)) from error
        finally:
            for stripe_id in pinned:
                self._reclaimer.unpin(stripe_id)

    def forget(self, handle: Handle) -> None:
        """The handle is closed, or read elsewhere from now on."""
        if handle.ahead_to:
            self._chunks.prefetcher.forget(handle)

    def record(self, stripe_id: int) -> StripeRecord:
        """The stripe's record, from the cache or the metadata."""
        records = self._records
        record = records.get(stripe_id)
        if record is None:
            self.record_misses += 1
            record = self._meta.stripes.load(stripe_id)
            if record is None:
                raise FsError(
                    errno.EIO, f"Stripe {stripe_id} is referenced but not known: run `ciaosfs check`."
                )
            records[stripe_id] = record
            if len(records) > limits.STRIPE_RECORDS_CACHE_MAX:
                records.popitem(last=False)
        else:
            self.record_hits += 1
        return record

    def forget_record(self, stripe_id: int) -> None:
        """The stripe's places changed, or it is gone."""
        self._records.pop(stripe_id, None)

    def _file_size(self, ino: int) -> int:
        size = self._meta.inodes.size(ino)
        if size is None:
            raise FsError(errno.ENOENT)
        return size

    def _assemble_nowait(self, pieces: Sequence[Piece]) -> Buffer | None:
        parts: list[Buffer] = []
        for piece in pieces:
            if piece.data is not None:
                parts.append(piece.data)
            elif piece.extent is None:
                parts.append(bytes(piece.length))
            else:
                found = self._stored_nowait(piece.extent, piece.start, piece.length)
                if found is None:
                    return None
                parts.append(found)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _stored_nowait(self, extent: Extent, start: int, length: int) -> Buffer | None:
        record = self.record(extent.stripe_id)
        if extent.codec == Codec.RAW:
            if self._chunks.prefetcher.has(record, extent.stripe_offset + start):
                return None
            return self._chunks.read_nowait(record, extent.stripe_offset + start, length)
        if extent.skip + start + length > INLINE_DECOMPRESS_BYTES_MAX:
            return None
        stored = self._chunks.read_nowait(record, extent.stripe_offset, extent.stored_length)
        if stored is None:
            return None
        return unpack(stored, extent.skip + start, length)

    async def _assemble(self, pieces: Sequence[Piece]) -> Buffer:
        parts: list[Buffer] = [b""] * len(pieces)

        async def fetch(index: int, piece: Piece) -> None:
            assert piece.extent is not None
            parts[index] = await self._stored(piece.extent, piece.start, piece.length)

        waiting = []
        for index, piece in enumerate(pieces):
            if piece.data is not None:
                parts[index] = piece.data
            elif piece.extent is None:
                parts[index] = bytes(piece.length)
            else:
                waiting.append((index, piece))
        if len(waiting) == 1:
            await fetch(*waiting[0])
        else:
            for number, (index, piece) in enumerate(waiting, 1):
                assert piece.extent is not None
                found = self._stored_nowait(piece.extent, piece.start, piece.length)
                if found is None:
                    await fetch(index, piece)
                else:
                    parts[index] = found
                    if number % PIECES_MAX == 0:
                        await trio.lowlevel.checkpoint()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _stored(self, extent: Extent, start: int, length: int) -> Buffer:
        record = self.record(extent.stripe_id)
        is_small = length == extent.length <= SMALL_BYTES_MAX
        if extent.codec == Codec.RAW:
            start += extent.stripe_offset
            return await self._chunks.read(record, start, length, with_neighbours=is_small)
        stored = await self._chunks.read(
            record, extent.stripe_offset, extent.stored_length, with_neighbours=is_small
        )
        return await self._workers.run(unpack, stored, extent.skip + start, length)

    def _read_ahead(self, handle: Handle, offset: int, length: int) -> None:
        """Begin to read what a sequential reader will want next, in at most `length` bytes.

        Not at every small read, but when a step of that is missing. Who opens the file again is read ahead for again.
        """
        if handle.ahead_to and not self._chunks.prefetcher.goes_on(handle):
            handle.ahead_to = 0
        length = min(length, limits.READ_AHEAD_BYTES, max(2 * (offset - handle.run_start), AHEAD_BYTES_MIN))
        end = offset + length
        # A mark further on is of an earlier pass: the reader has gone back, and was answered from memory until now.
        begin = max(offset, handle.ahead_to) if handle.ahead_to <= end else offset
        if end - begin < min(length // 2, AHEAD_STEP_BYTES):
            return
        handle.ahead_to = end
        self._chunks.prefetcher.passed(handle, offset - PASSED_BYTES)
        asked: set[int] = set()
        for extent in self._meta.extents.overlapping(handle.file.ino, begin, end):
            try:
                record = self.record(extent.stripe_id)
            except FsError as error:  # for the read that comes to it: these bytes are not what was asked for
                log.debug("reading ahead of inode %d: %s", handle.file.ino, error)
                continue
            if extent.codec == Codec.RAW and extent.length >= LARGE_EXTENT_BYTES:
                shift = extent.stripe_offset - extent.offset
                stop = min(end, extent.offset + extent.length) + shift
                reached = self._chunks.prefetcher.begin(
                    handle, record, max(begin, extent.offset) + shift, stop, shift
                )
                if reached is not None and reached < stop:
                    handle.ahead_to = reached - shift
                    return
                if reached is not None:
                    continue
            if (extent.offset >= begin or begin == offset) and extent.stripe_id not in asked:
                asked.add(extent.stripe_id)
                self._nursery.start_soon(self._chunks.advise, record)


def _printable(path: bytes | None) -> str:
    return "no name" if path is None else path.decode(errors="backslashreplace")
