"""Writing the needles of one stripe or commit to as many different drives.

Places are taken in the loop, where it is cheap and nothing else can run in between; then one hop to a worker
thread does all the rest for all drives in turn: coding, checksums, heads, pwritev. The C code underneath lets
other threads run, and hops are dear next to a write that goes to the page cache. A drive that refuses its
needle is passed over and another one is tried for it, in another round; what was coded is kept for that.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import DriveGoneError, NoSpaceError
from ciaosfs.base.types import Buffer, ShardPlace, StripeKind, VolumeKind
from ciaosfs.codec.checksum import block_checksums
from ciaosfs.codec.needle import FIXED_HEAD_BYTES, NeedleHead, NeedleKind, encode_head
from ciaosfs.drive.workers import Workers
from ciaosfs.stripe.durability import Durability
from ciaosfs.stripe.layout import Shape
from ciaosfs.stripe.unlanded import Unlanded
from ciaosfs.volume.appending import Appenders, is_full_error, reserve_ahead
from ciaosfs.volume.driveset import DriveSet, DriveSlot
from ciaosfs.volume.volume import Volume, VolumeState, write_needle

log = logging.getLogger(__name__)

Shard = Sequence[Buffer]
"""One shard, in parts."""
ChooseDrives = Callable[[int, Collection[int], Collection[int]], list[int]]
"""(how many, which not, which have others of the same) -> the numbers of the drives to write to, in the loop."""


class Load(Protocol):
    """What is to be written. `shards` is called once, in a worker thread."""

    def shards(self) -> Sequence[Shard] | Mapping[int, Shard]:
        """The shards that the spec wants, by index, each `shape.shard_bytes` long."""


@dataclass(frozen=True, slots=True)
class NeedleSpec:
    """What the needles of one stripe or commit have in common."""

    kind: NeedleKind
    stripe_id: int
    stripe_kind: StripeKind | None
    shape: Shape
    only: tuple[int, ...] | None = None
    """The indexes of the shards to be written, in order; None for all."""

    @property
    def wanted(self) -> Sequence[int]:
        """The indexes of the shards to be written."""
        return range(self.shape.shard_count) if self.only is None else self.only


class Written(NamedTuple):
    """One needle on a drive, with its head for whoever reads it next."""

    place: ShardPlace
    head: NeedleHead
    volume: Volume


@dataclass(slots=True)
class _Target:
    """Where one needle is to go. `sent` is what its drive was told to expect."""

    shard_index: int
    volume: Volume
    offset: int
    reserve_to: int
    sent: int
    head: NeedleHead | None = None
    error: OSError | None = None


class Spreader:
    """Writes needles to drives. `drives_min` is how many there must be, whatever is written.

    `look` looks at the drives anew; it is called before giving up for lack of room.
    """

    def __init__(
        self,
        drives: DriveSet,
        appenders: Appenders,
        durability: Durability,
        workers: Workers,
        drives_min: int,
        look: Callable[[], Awaitable[object]],
    ) -> None:
        self._drives = drives
        self._appenders = appenders
        self._durability = durability
        self._workers = workers
        self._drives_min = drives_min
        self._look = look
        self.unlanded = Unlanded()

    def check_drives(self, away: Collection[int] = ()) -> int:
        """How many drives can be written to, full or not, leaving out `away`; DriveGoneError when too few."""
        usable = sum(slot.number not in away for slot in self._drives.usable())
        if usable < self._drives_min:
            missing = [
                f"{slot.number} at {slot.path}"
                for slot in self._drives.slots.values()
                if not slot.is_usable or slot.number in away
            ]
            raise DriveGoneError(
                f"Only {usable} drives can be written to and {self._drives_min} are needed: "
                f"look after drive {', '.join(missing)}."
            )
        return usable

    async def spread(
        self,
        spec: NeedleSpec,
        load: Load,
        choose: ChooseDrives,
        exclude: Collection[int] = (),
        holders: Collection[int] = (),
    ) -> list[Written]:
        """Write the needles; returns those that were written, ordered by shard index.

        Each goes to another drive, none to those in `exclude`; `holders` have others of the same stripe or
        commit, which matters to failure domains. There are as many as the shape says unless fewer drives are
        there. Raises NoSpaceError when drives that are there are too full, DriveGoneError when too few are;
        then what was written is taken back. Written is not synced.
        """
        written: dict[int, Written] = {}
        try:
            await self._spread(spec, load, choose, set(exclude), holders, written)
        except (NoSpaceError, DriveGoneError):
            if spec.kind is NeedleKind.SHARD:
                self.unlanded.landed(spec.stripe_id)
            await self._take_back(list(written.values()))
            raise
        return [written[index] for index in sorted(written)]

    async def _spread(
        self,
        spec: NeedleSpec,
        load: Load,
        choose: ChooseDrives,
        tried: set[int],
        holders: Collection[int],
        written: dict[int, Written],
    ) -> None:
        """Rounds of taking places and writing, until all needles are written or no drive is left to try."""
        shape = spec.shape
        shards: Sequence[Shard] | Mapping[int, Shard] | None = None
        exclude = frozenset(tried)
        away: set[int] = set()
        has_looked = False
        while len(written) < len(spec.wanted):
            self.check_drives(away)
            candidates = sum(slot.number not in exclude | away for slot in self._drives.usable())
            wanted = min(len(spec.wanted), candidates)
            missing = [index for index in spec.wanted if index not in written]
            beside = {*holders, *(needle.volume.drive_number for needle in written.values())}
            chosen = choose(len(missing), tried, beside)
            if len(written) + len(chosen) < wanted:
                if not has_looked:
                    # Space may have been given back, or a drive have gone, since the last look.
                    has_looked = True
                    await self._look()
                    continue
                raise NoSpaceError(
                    f"A stripe of {shape.payload_bytes} bytes finds room on {len(written) + len(chosen)} of "
                    f"{wanted} drives: delete something or add a drive."
                )
            if not chosen:
                return
            unready = self._unready(chosen, shape)
            if unready:
                await self._make_ready(unready, shape, tried, away)
                continue
            targets = self._take(spec, missing, chosen)
            try:
                shards = await self._workers.run(_write, self._drives.store_id, spec, load, shards, targets)
            finally:
                self._landed(spec, targets, written, tried)
            for index in [index for index, needle in written.items() if needle.volume.is_sync_failed]:
                del written[index]

    def _unready(self, numbers: Sequence[int], shape: Shape) -> list[int]:
        """Those drives whose current volume cannot take the needle."""
        unready = []
        for number in numbers:
            volume = self._appenders.current(number, shape.volume_kind)
            if volume is None or not volume.has_room(shape.shard_bytes):
                unready.append(number)
        return unready

    async def _make_ready(
        self, numbers: Sequence[int], shape: Shape, tried: set[int], away: set[int]
    ) -> None:
        """Get volumes with room on these drives, at the same time; drives where that fails go to `tried`.

        And to `away` when they turn out not to be there any more.
        """

        async def make_one(number: int, slot: DriveSlot) -> None:
            try:
                volume = await self._appenders.make_ready(slot, shape.volume_kind, shape.shard_bytes)
                self._durability.wrote(volume, None, 0)
            except (DriveGoneError, OSError) as error:
                tried.add(number)
                if isinstance(error, DriveGoneError):
                    away.add(number)
                self._refused(number, error)

        async with trio.open_nursery() as nursery:
            for number in numbers:
                nursery.start_soon(make_one, number, self._drives.slots[number])

    def _take(self, spec: NeedleSpec, missing: Sequence[int], numbers: Sequence[int]) -> list[_Target]:
        """Take the places. With fewer drives than shards the data shards come first: they read without
        decoding.

        Which drive gets which shard turns with the stripes, so that data and parity wear all drives alike.
        """
        shape = spec.shape
        turn = spec.stripe_id % len(numbers)
        targets = []
        for shard_index, number in zip(missing, [*numbers[turn:], *numbers[:turn]], strict=False):
            slot = self._drives.slots[number]
            volume = self._appenders.current(number, shape.volume_kind)
            assert volume is not None
            claimed = volume.claimed
            offset = volume.take(shape.shard_bytes)
            if spec.kind is NeedleKind.SHARD:
                self.unlanded.sent(spec.stripe_id, volume.volume_id)
            reserve_to = self._appenders.plan_reserve(volume)
            sent = max(volume.claimed, reserve_to) - claimed
            slot.sent(sent)
            targets.append(_Target(shard_index, volume, offset, reserve_to, sent))
        return targets

    def _landed(
        self, spec: NeedleSpec, targets: Sequence[_Target], written: dict[int, Written], tried: set[int]
    ) -> None:
        """The write is over, in whatever way. No await: places and the dirty set change in one step."""
        stripe_id = spec.stripe_id if spec.kind is NeedleKind.SHARD else None
        for target in targets:
            volume = target.volume
            self._drives.slots[volume.drive_number].arrived(target.sent)
            tried.add(volume.drive_number)
            self._durability.wrote(volume, stripe_id if target.head else None, target.shard_index)
            volume.wrote()
            if target.error is not None:
                self._refused(volume.drive_number, target.error)
            elif target.head is not None:
                place = ShardPlace(target.shard_index, volume.volume_id, target.offset)
                written[target.shard_index] = Written(place, target.head, volume)

    async def _take_back(self, needles: Sequence[Written]) -> None:
        """Make needles that came to nothing unreadable, and give their space back, as far as the drives let
        us.

        A commit that was refused must not be found by a recovery beside the one that is made in its place.
        """
        needles = [needle for needle in needles if needle.volume.state is VolumeState.OPEN]
        if not needles:
            return
        for needle in needles:
            needle.volume.hold()
        try:
            await self._workers.run(_take_back, needles)
        finally:
            for needle in needles:
                self._durability.wrote(needle.volume, None, 0)
                needle.volume.wrote()

    def _refused(self, number: int, error: Exception) -> None:
        """Tell a full drive from one that is ill. An absent one is found out by the next look."""
        slot = self._drives.slots.get(number)
        if slot is None:
            return  # it was dropped meanwhile
        if is_full_error(error):
            slot.refused()
        elif isinstance(error, OSError):
            slot.failed(str(error))
            self._appenders.retire(number)


def _write(
    store_id: bytes,
    spec: NeedleSpec,
    load: Load,
    shards: Sequence[Shard] | Mapping[int, Shard] | None,
    targets: Sequence[_Target],
) -> Sequence[Shard] | Mapping[int, Shard]:
    """Blocking: everything that is done to the bytes. Fills in each target's head or error.

    A deadline for slow drives belongs here: each drive's write would go to a thread of its own, and those
    that are late be treated as failed.
    """
    if shards is None:
        shards = load.shards()
    shape = spec.shape
    for target in targets:
        volume, index = target.volume, target.shard_index
        head = NeedleHead(
            spec.kind,
            store_id,
            volume.volume_id,
            target.offset,
            spec.stripe_id,
            index,
            shape.data_count,
            shape.parity_count,
            spec.stripe_kind,
            shape.payload_bytes,
            shape.shard_bytes,
            block_checksums(shards[index], spec.stripe_id, index),
        )
        try:
            if target.reserve_to:
                reserve_ahead(volume, target.reserve_to)
            write_needle(volume.file, target.offset, encode_head(head), shards[index], shape.shard_bytes)
            if volume.kind is VolumeKind.DATA:
                start = max(0, target.offset - limits.WRITE_BEHIND_BYTES)
                volume.file.write_behind(start, target.offset + head.needle_bytes - start)
        except OSError as error:
            target.error = error
            _give_back(volume, target.offset, head.needle_bytes)
        else:
            target.head = head
    return shards


def _give_back(volume: Volume, offset: int, length: int) -> None:
    """Blocking. What was written of a needle before its drive was full would fill that drive for ever."""
    try:
        volume.file.punch(offset, length)
    except OSError as error:
        log.debug("part of a needle in volume %016x stays: %s", volume.volume_id, error)


def _take_back(needles: Sequence[Written]) -> None:
    """Blocking; see Spreader._take_back."""
    for needle in needles:
        try:
            needle.volume.file.write(needle.place.offset, [bytes(FIXED_HEAD_BYTES)])
            needle.volume.file.punch(needle.place.offset, needle.head.needle_bytes)
        except OSError as error:
            log.warning("a needle in volume %016x stays behind: %s", needle.place.volume_id, error)
