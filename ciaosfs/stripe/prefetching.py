"""Shards read ahead into memory, for those who read from one end to the other.

A stream that is read through the page cache costs two copies and a page of 4 KiB at a time, and each of its reads a trip to
a thread and back. Here one call in a thread brings a *piece* of a shard straight from the device into memory and verifies
it, before it is asked for; the read then takes it without waiting. The page cache, where the kernel keeps the file itself,
is not filled a second time.

A piece that fails is forgotten: the read that comes finds out why, and knows what to do. So does it when a piece is late.
Stripes never change, and one that is gone fails its checksums, so a piece is good for as long as it is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from weakref import WeakSet

import outcome
import trio

from ciaosfs.base import clock, limits
from ciaosfs.base.errors import CiaosError
from ciaosfs.base.types import Buffer, ShardPlace, StripeRecord
from ciaosfs.drive.calls import DriveCalls
from ciaosfs.drive.lanes import Lane, ReadCall
from ciaosfs.drive.pagebuffers import PageBuffers
from ciaosfs.stripe.fetching import ShardFetcher
from ciaosfs.stripe.layout import ShardRange, place_of, plan_read

log = logging.getLogger(__name__)

PIECE_BYTES = 1 * limits.MIB
PIECES_MAX = limits.READ_AHEAD_ROOM_BYTES // PIECE_BYTES
READER_PIECES_MIN = 4
"""A reader who would get fewer, because there are so many, is better off with the page cache."""
LANE_READS_MAX = limits.DRIVE_READS_MAX - 1
"""Reads under way on one drive from which on no piece is begun: others than streams want to read, too."""
IDLE_S = 2.0
"""Readers who were not heard of for so long lose what was read ahead for them when others need the room."""
GONE_S = 10.0
"""And when nobody needs it, after so long."""
REFUSED_S = 60.0
"""A drive that was found to be readable through the page cache alone is not tried again for so long."""

_Key = tuple[int, int, int]
"""Stripe, shard, number of the piece in the shard."""


class _Piece:
    """One piece: under way, ready, or of no use. A ReadOwner (see lanes)."""

    __slots__ = (
        "__weakref__",
        "_failed",
        "end",
        "is_late",
        "is_ready",
        "is_touched",
        "key",
        "owner",
        "readers",
        "tasks",
        "times_taken",
        "view",
    )

    def __init__(
        self,
        key: _Key,
        reader: Hashable,
        view: memoryview,
        end: int,
        failed: Callable[[_Piece, ReadCall], None],
    ) -> None:
        """`end`: so many bytes of it are payload, and not padding."""
        self.key = key
        self.owner = reader
        """In whose share it counts; one of `readers`."""
        self.readers: set[Hashable] = set()
        """Who wants it: somebody, as long as it is in the table."""
        self.times_taken = 0
        """How often its last byte was read."""
        self.view = view
        self.end = end
        self.is_ready = False
        self.is_late = False
        self.is_touched = False
        """Whether anything of it was taken."""
        self.tasks: list[trio.lowlevel.Task] = []
        self._failed = failed

    @property
    def is_under_way(self) -> bool:
        return not self.is_ready and not self.is_late

    def read_ended(self, call: ReadCall) -> None:
        result = call.result
        if isinstance(result, outcome.Error) and not isinstance(result.error, (CiaosError, OSError)):
            log.error(
                "reading ahead failed", exc_info=result.error
            )  # our bug; the read that comes may do without
        self.is_ready = isinstance(result, outcome.Value) and result.value is True
        if not self.is_ready:
            self._failed(self, call)
        self._wake()

    def read_late(self, call: ReadCall) -> bool:
        """Nobody waits for it any longer: what they do instead asks others, too."""
        self.is_late = True
        self._wake()
        return True

    async def wait(self) -> None:
        """Until it is not under way any more."""
        task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self.tasks.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self.tasks.append(task)
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _wake(self) -> None:
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            trio.lowlevel.reschedule(task)


class _Reader:
    """One who has pieces."""

    __slots__ = ("heard_s", "owned", "pieces")

    def __init__(self) -> None:
        self.heard_s = 0.0
        """When it was last heard of."""
        self.owned = 0
        """Pieces that count in its share. Those that others began, and it wants too, do not."""
        self.pieces: dict[_Piece, int] = {}
        """What it wants, each with the position in its file from which on it has no use for it."""


class Prefetcher:
    """For the loop. A *reader* is whoever reads one file from one end to the other: pieces are shared out among them."""

    def __init__(self, shards: ShardFetcher, calls: DriveCalls) -> None:
        self._shards = shards
        self._calls = calls
        self._buffers = PageBuffers(PIECES_MAX, PIECE_BYTES)
        self._pieces: dict[_Key, _Piece] = {}
        """In the order in which they were begun."""
        self._readers: dict[Hashable, _Reader] = {}
        """Those who have pieces."""
        self._robbed: set[Hashable] = set()
        """Readers who have not yet been told that they lost what was read ahead for them."""
        self._left: WeakSet[_Piece] = WeakSet()
        """Pieces of no use whose buffers are in calls under way, hung ones perhaps. Each lives as long as its call."""
        self.taken = 0
        """Ranges of shards that were there when they were asked for, or were waited for."""
        self.wasted = 0
        """Pieces of which nobody had taken a byte when the last who wanted them wanted them no more."""

    @property
    def kept(self) -> int:
        """Pieces under way, or ready for who comes."""
        return len(self._pieces)

    def begin(
        self, reader: Hashable, stripe: StripeRecord, start: int, end: int, shift: int = 0
    ) -> int | None:
        """Read payload bytes `[start, end)` ahead, as far as there is room; return up to where that was done.

        None when this stripe, or this reader, had better be served by the page cache. What lies on drives that are away
        or lag is left to the read that comes. `shift` is what their positions in the payload are more than those in the
        file, which `passed` speaks of.
        """
        if stripe.shard_bytes < limits.NEEDLE_LARGE_BYTES or stripe.shard_bytes % limits.NEEDLE_ALIGN_LARGE:
            return None  # its needles are not made of whole pages: no drive can read them past the page cache
        share = self._share(reader)
        if share < READER_PIECES_MIN or self._count(reader) >= share:
            self._drop_idle(IDLE_S)
            share = self._share(reader)
        if share < READER_PIECES_MIN:
            return None
        ranges = self._ranges(stripe, start, end)
        if ranges is None:
            return None
        for wanted, place, lane in ranges:
            for number in range(
                wanted.start // PIECE_BYTES, -(-(wanted.start + wanted.length) // PIECE_BYTES)
            ):
                key = stripe.stripe_id, wanted.shard_index, number
                at = number * PIECE_BYTES
                base = wanted.shard_index * stripe.shard_bytes + at
                piece = self._pieces.get(key)
                if piece is None:
                    if lane.running >= LANE_READS_MAX or self._count(reader) >= share:
                        return max(start, base)
                    view = self._take_buffer()
                    if view is None:
                        return max(start, base) if reader in self._readers else None
                    view = view[: min(PIECE_BYTES, stripe.shard_bytes - at)]
                    payload_end = min(len(view), stripe.payload_bytes - base)
                    piece = self._pieces[key] = _Piece(key, reader, view, payload_end, self._failed)
                    self._claim(reader, piece, min(end, base + piece.end) - shift)
                    lane.read(piece, len(view), self._fetch, (piece, stripe, place, at))
                else:
                    self._claim(reader, piece, min(end, base + piece.end) - shift)
        return end

    def _ranges(
        self, stripe: StripeRecord, start: int, end: int
    ) -> list[tuple[ShardRange, ShardPlace, Lane]] | None:
        """What of payload bytes `[start, end)` lies on drives that are there and do not lag, and where.

        None when one of the drives can only be read through the page cache.
        """
        now_s = clock.monotonic_s()
        ranges = []
        for wanted in plan_read(stripe, start, end - start):
            place = place_of(stripe, wanted.shard_index)
            volume = None if place is None else self._shards.files.get(place.volume_id)
            if place is None or volume is None:
                continue
            lane = self._calls.lane(volume.drive_number)
            if now_s < lane.page_cache_only_until_s:
                return None
            if not lane.is_to_be_avoided:
                ranges.append((wanted, place, lane))
        return ranges

    def has(self, stripe: StripeRecord, offset: int) -> bool:
        """Whether the payload byte at `offset` was read ahead and can be taken without waiting."""
        if not self._pieces:
            return False
        index, start = divmod(offset, stripe.shard_bytes)
        piece = self._pieces.get((stripe.stripe_id, index, start // PIECE_BYTES))
        return piece is not None and piece.is_ready

    async def read(self, stripe: StripeRecord, wanted: ShardRange) -> Buffer | None:
        """A range that was read ahead as a whole, verified; None when it was not. Copied where pieces meet.

        A piece is let go of when its last byte was read as often as there are readers who want it.
        """
        index, start, length = wanted
        parts: list[memoryview] = []
        while length:
            found = await self._read_piece(
                stripe, index, start, min(length, PIECE_BYTES - start % PIECE_BYTES)
            )
            if found is None:
                return None
            parts.append(found)
            start += len(found)
            length -= len(found)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _read_piece(
        self, stripe: StripeRecord, shard_index: int, offset: int, length: int
    ) -> memoryview | None:
        number, start = divmod(offset, PIECE_BYTES)
        piece = self._pieces.get((stripe.stripe_id, shard_index, number))
        if piece is None:
            return None
        if piece.is_under_way:
            await piece.wait()
        if not piece.is_ready:
            return None
        self.taken += 1
        piece.is_touched = True
        if start + length >= piece.end:
            piece.times_taken += 1
            if piece.times_taken >= len(piece.readers):
                self._drop(piece)
        return piece.view[start : start + length]

    def goes_on(self, reader: Hashable) -> bool:
        """The reader reads on. False, once, when it lost what was begun for it, and had better begin anew where it is."""
        known = self._readers.get(reader)
        if known is not None:
            known.heard_s = clock.monotonic_s()
        if reader not in self._robbed:
            return True
        self._robbed.remove(reader)
        return False

    def passed(self, reader: Hashable, position: int) -> None:
        """The reader has no use any more for what lies before `position` in its file, whether it took it or not.

        An extent may end inside a piece, and reads be answered from elsewhere: nobody takes the last byte of such pieces.
        """
        known = self._readers.get(reader)
        if known is not None:
            for piece in [piece for piece, end in known.pieces.items() if end <= position]:
                self._disclaim(reader, known, piece)

    def forget(self, reader: Hashable) -> None:
        """The reader has ended, or reads on elsewhere: what was read ahead for it is of no use."""
        self._robbed.discard(reader)
        known = self._readers.get(reader)
        if known is not None:
            for piece in list(known.pieces):
                self._disclaim(reader, known, piece)

    def tidy(self) -> None:
        """To be called now and then: give memory back when nobody has come for it."""
        self._drop_idle(GONE_S)
        self.give_back()

    def give_back(self) -> None:
        """Return the memory to the system when nothing is read ahead: who writes needs it more. Cheap."""
        if not self._pieces:
            self._buffers.give_back()

    def _share(self, reader: Hashable) -> int:
        """How many pieces this reader may have, beside those who have some: of the buffers that no call is stuck with."""
        return (PIECES_MAX - len(self._left)) // (len(self._readers) + (reader not in self._readers))

    def _count(self, reader: Hashable) -> int:
        """How many of its share it has."""
        known = self._readers.get(reader)
        return 0 if known is None else known.owned

    def _claim(self, reader: Hashable, piece: _Piece, end: int) -> None:
        """The reader wants the piece until it is at `end` in its file."""
        known = self._readers.get(reader)
        if known is None:
            known = self._readers[reader] = _Reader()
        known.heard_s = clock.monotonic_s()
        if not piece.readers:
            known.owned += 1
        known.pieces[piece] = max(end, known.pieces.get(piece, end))
        piece.readers.add(reader)

    def _disclaim(self, reader: Hashable, known: _Reader, piece: _Piece) -> None:
        """The reader wants it no more; the last one of all takes it along."""
        if len(piece.readers) == 1:
            self.wasted += not piece.is_touched
            self._drop(piece)
            return
        piece.readers.remove(reader)
        if piece.owner is reader:
            known.owned -= 1
            piece.owner = next(iter(piece.readers))
            self._readers[piece.owner].owned += 1
        del known.pieces[piece]
        if not known.pieces:
            del self._readers[reader]

    def _take_buffer(self) -> memoryview | None:
        if not self._buffers.free_count:
            self._drop_idle(IDLE_S)
        return self._buffers.take()

    def _drop_idle(self, idle_s: float) -> None:
        before = clock.monotonic_s() - idle_s
        for reader in [reader for reader, known in self._readers.items() if known.heard_s <= before]:
            self.forget(reader)
            self._robbed.add(reader)

    def _failed(self, piece: _Piece, call: ReadCall) -> None:
        """The call has ended, or was given up, without its bytes."""
        if isinstance(call.result, outcome.Value):
            call.lane.page_cache_only_until_s = clock.monotonic_s() + REFUSED_S
            if piece.key in self._pieces and self._pieces[piece.key] is piece:
                self._robbed |= piece.readers
        self._drop(piece)

    def _drop(self, piece: _Piece) -> None:
        """Its buffer is free when nobody uses it any more: a reader who was given it, or a thread that fills it."""
        if self._pieces.get(piece.key) is piece:
            del self._pieces[piece.key]
            if not piece.is_ready:
                self._left.add(piece)  # a call that has ended takes it out in this very step
            self._readers[piece.owner].owned -= 1
            for reader in piece.readers:
                pieces = self._readers[reader].pieces
                del pieces[piece]
                if not pieces:
                    del self._readers[reader]

    def _fetch(self, piece: _Piece, stripe: StripeRecord, place: ShardPlace, start: int) -> bool:
        """Blocking. Refers to the piece for as long as the thread uses its buffer."""
        return self._shards.fetch_into(stripe, place, start, piece.view)
