"""Dirty bytes leave memory as stripes, while requests go on.

A *flight* is one stripe under way: segments are marked, encoded and written by worker threads, and when the stripe
is on the drives (written, not synced) the ranges that nobody has changed meanwhile become extents, in the loop, in
a few steps of the open transaction. A flight that fails puts its bytes back as dirty.

Full stripes leave as soon as one file has a stripe's worth; mixed ones when much small data has gathered; the rest
with the next commit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError, DriveGoneError, NoSpaceError
from ciaosfs.base.types import Extent
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.files import File, Files
from ciaosfs.fs.payload import Cargo, Load, build_load
from ciaosfs.meta.cutting import cut
from ciaosfs.meta.metadata import Metadata
from ciaosfs.stripe.store import ChunkStore

log = logging.getLogger(__name__)

INLINE_BYTES_MAX = 32 * limits.KIB
"""Laying out this little costs less in the loop than a thread hop would."""
RANGES_MAX = 128
"""Ranges that become extents in one step, in 1 to 2 ms."""


class Flusher:
    """Owns the flights. `files.pending_bytes` is what it works off; `limits.DIRTY_BYTES_MAX` is the ceiling."""

    def __init__(
        self, meta: Metadata, chunks: ChunkStore, files: Files, workers: Workers, nursery: trio.Nursery
    ) -> None:
        self._meta = meta
        self._chunks = chunks
        self._files = files
        self._workers = workers
        self._nursery = nursery
        self._flights = 0
        self._progress = trio.Event()
        self._failure: CiaosError | None = None
        self.bytes_flushed = 0
        self.stripes_written = 0

    @property
    def flights(self) -> int:
        """Stripes being written at this moment."""
        return self._flights

    def has_room(self, length: int) -> bool:
        """Whether `length` more bytes may be taken into memory now; a single huge write has room when it is alone."""
        pending = self._files.pending_bytes
        return pending + length <= limits.DIRTY_BYTES_MAX or pending == 0

    async def wait_room(self, length: int) -> None:
        """Wait until flights have made room; raises the flights' error when they fail instead."""
        while not self.has_room(length):
            if self._flights == 0:
                self._failure = None
                self.launch_all()
            await self._wait_progress()
            if self._failure is not None and self._flights == 0 and not self.has_room(length):
                raise self._failure

    def wrote(self, file: File) -> None:
        """After a write: account it, and let a full stripe go."""
        self._files.account(file)
        if file.overlay.dirty_bytes >= limits.STRIPE_PAYLOAD_BYTES_MAX:
            while (
                file.overlay.dirty_bytes >= limits.STRIPE_PAYLOAD_BYTES_MAX
                and self._flights < limits.INFLIGHT_STRIPES_MAX
            ):
                self._launch([file])
        elif (
            self._files.pending_bytes >= limits.FLUSH_AHEAD_BYTES
            and self._flights < limits.INFLIGHT_STRIPES_MAX // 2
        ):
            self._launch(self._files.dirty())

    def launch_all(self) -> None:
        """Start flights for what is dirty, as many as may be under way."""
        while self._files.has_dirty and self._flights < limits.INFLIGHT_STRIPES_MAX:
            self._launch(self._files.dirty())

    async def flush_all(self) -> None:
        """Write everything that is dirty now and wait for all flights. Bytes that arrive meanwhile may remain.

        Raises NoSpaceError or DriveGoneError when stripes cannot be written; their bytes stay dirty.
        """
        self._failure = None
        while self._flights or (self._files.has_dirty and self._failure is None):
            if self._failure is None:
                self.launch_all()
            await self._wait_progress()
        if self._failure is not None:
            raise self._failure

    async def flush_ahead(self) -> None:
        """One pass over what is dirty at this moment, so that the cut that follows finds little."""
        goal = self.bytes_flushed + self._files.pending_bytes
        self._failure = None
        while (
            self.bytes_flushed < goal and self._failure is None and (self._flights or self._files.has_dirty)
        ):
            self.launch_all()
            await self._wait_progress()

    async def _wait_progress(self) -> None:
        if self._flights:
            await self._progress.wait()

    def _launch(self, files: Iterable[File]) -> None:
        """Mark up to one stripe's worth of the oldest dirty bytes and send it off."""
        flight: list[tuple[File, Cargo]] = []
        room = limits.STRIPE_PAYLOAD_BYTES_MAX
        for file in files:
            before = room
            segments = file.overlay.take(flight, room)
            room -= sum(len(segment.data) for segment in segments)
            if room != before:
                parts = [(segment.offset, segment.data) for segment in segments]
                flight.append((file, Cargo(file.ino, parts, file.compress)))
                self._files.account(file)
            if room == 0:
                break
        if flight:
            self._flights += 1
            self._nursery.start_soon(self._fly, flight, limits.STRIPE_PAYLOAD_BYTES_MAX - room)

    async def _fly(self, flight: list[tuple[File, Cargo]], length: int) -> None:
        cargos = [cargo for _, cargo in flight]
        try:
            # Cancelled, its bytes would be neither dirty nor stored, and the last commit would keep holes for them.
            with trio.CancelScope(shield=True):
                if length <= INLINE_BYTES_MAX:
                    load = build_load(cargos)
                else:
                    load = await self._workers.run(build_load, cargos)
                record = await self._chunks.write_stripe(load.pieces)
        except (NoSpaceError, DriveGoneError) as error:
            self._put_back(flight, error)
        except Exception as error:  # our bug: the bytes stay in memory, the fsync that needs them gets EIO
            log.exception("flight of %d bytes failed", length)
            self._put_back(flight, CiaosError(f"Writing a stripe failed: {error!r}"))
        else:
            self._meta.stripes.insert(record, length)
            await self._land(flight, load, record.stripe_id)
            self.stripes_written += 1
        finally:
            self.bytes_flushed += length
            self._flights -= 1
            progress, self._progress = self._progress, trio.Event()
            progress.set()
        if self._failure is None:
            self._launch_full()

    def _launch_full(self) -> None:
        """A place became free: let the next full stripe of a streaming writer go."""
        for file in self._files.dirty():
            if self._flights >= limits.INFLIGHT_STRIPES_MAX:
                return
            if file.overlay.dirty_bytes >= limits.STRIPE_PAYLOAD_BYTES_MAX:
                self._launch([file])

    def _put_back(self, flight: list[tuple[File, Cargo]], error: CiaosError) -> None:
        for file, _ in flight:
            file.overlay.revert(flight)
            self._files.account(file)
        if self._failure is None:
            log.warning("stripe not written: %s", error)
        self._failure = error

    async def _land(self, flight: list[tuple[File, Cargo]], load: Load, stripe_id: int) -> None:
        """What still carries the mark becomes extents. A flight of crumbs has thousands: others run in between.

        Each range leaves the overlay in the step in which its extents come. Commits wait for the end of the flight.
        """
        room = RANGES_MAX
        first: list[tuple[int, list[Extent]]] = []
        for (file, cargo), extents in zip(flight, load.extents, strict=True):
            at = passed = 0
            while ranges := file.overlay.land(flight, at, room):
                new = []
                for start, end in ranges:
                    passed, arrived = _arrived(extents, passed, start, end)
                    if file.is_blank:
                        new += arrived
                    else:
                        arrived = [extent._replace(stripe_id=stripe_id) for extent in arrived]
                        self._meta.extents.replace(cargo.ino, start, end, arrived)
                if file.is_blank:
                    first.append((cargo.ino, new))
                    file.is_blank = False
                at = ranges[-1][1]
                room -= len(ranges)
                if not room:
                    self._files.account(file)
                    if first:
                        self._meta.extents.add_first(stripe_id, first)
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    room = RANGES_MAX
                    first = []
            self._files.account(file)
        if first:
            self._meta.extents.add_first(stripe_id, first)


def _arrived(extents: list[Extent], first: int, start: int, end: int) -> tuple[int, list[Extent]]:
    """The parts of the extents that cover `[start, end)`, and the index of the first extent that ends behind `start`.

    All before `first` end at or before `start`. Both are in order, so going through many ranges looks at each once.
    """
    if not first and start <= extents[0].offset and extents[-1].offset + extents[-1].length <= end:
        return len(extents), extents
    while first < len(extents) and extents[first].offset + extents[first].length <= start:
        first += 1
    arrived = []
    for index in range(first, len(extents)):
        part = cut(extents[index], start, end)
        if part is None:
            break
        arrived.append(part)
    return first, arrived
