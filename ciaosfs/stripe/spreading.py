"""Writing the needles of one stripe or commit to as many different drives.

Places are taken in the loop, where it is cheap and nothing else can run in between; then one hop to a worker
thread does all the rest for all drives in turn: coding, checksums, heads, pwritev. The C code underneath lets
other threads run, and hops are dear next to a write that goes to the page cache. A drive that refuses its
needle is passed over and another one is tried for it, in another round; what was coded is kept for that.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import NamedTuple, Protocol
from uuid import UUID

import outcome
import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import DriveGoneError, NoSpaceError
from ciaosfs.base.types import Buffer, ShardPlace, StripeKind, VolumeKind
from ciaosfs.codec.checksum import block_checksums
from ciaosfs.codec.needle import FIXED_HEAD_BYTES, NeedleHead, NeedleKind, encode_head
from ciaosfs.drive.calls import DriveCalls
from ciaosfs.drive.tours import Step, raise_unexpected
from ciaosfs.stripe.durability import Durability
from ciaosfs.stripe.layout import Shape
from ciaosfs.stripe.unlanded import Unlanded
from ciaosfs.volume.appending import Appenders, is_full_error, reserve_ahead
from ciaosfs.volume.driveset import DriveSet, DriveSlot
from ciaosfs.volume.volume import Hold, Volume, VolumeState, write_needle

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
    hold: Hold


class Spreader:
    """Writes needles to drives. `drives_min` is how many there must be, whatever is written.

    `look` looks at the drives anew; it is called before giving up for lack of room.
    """

    def __init__(
        self,
        drives: DriveSet,
        appenders: Appenders,
        durability: Durability,
        calls: DriveCalls,
        drives_min: int,
        look: Callable[[], Awaitable[object]],
    ) -> None:
        self._drives = drives
        self._turns = itertools.count()
        self._appenders = appenders
        self._durability = durability
        self._calls = calls
        self._drives_min = drives_min
        self._look = look
        self.unlanded = Unlanded()

    def check_drives(self, away: Collection[int] = ()) -> int:
        """How many drives can be written to, full or not, leaving out `away`; DriveGoneError when too few."""
        usable = sum(slot.number not in away for slot in self._drives.usable())
        if usable < self._drives_min:
            slots = self._drives.slots.values()
            missing = [slot for slot in slots if not slot.is_usable or slot.number in away]
            raise DriveGoneError(
                f"Only {usable} drives can be written to and {self._drives_min} are needed: "
                f"{self._remedy(missing)}."
            )
        return usable

    def _remedy(self, missing: Sequence[DriveSlot]) -> str:
        """What to do about drives that cannot be written to."""
        owners = {slot.owner for slot in missing}
        owner = owners.pop() if len(owners) == 1 else None
        if owner is not None:
            numbers = ", ".join(str(slot.number) for slot in missing)
            those = f"drives {numbers} belong" if len(missing) > 1 else f"drive {numbers} belongs"
            return (
                f"{those} to another store, {UUID(bytes=owner)}, and this one is "
                f"{UUID(bytes=self._drives.store_id)}: correct 'store', or the paths of the drives, in ciaosfs.toml"
            )
        places = (
            f"{slot.number} at {slot.path}{'' if slot.owner is None else ', which is of another store'}"
            for slot in missing
        )
        return f"look after drive {', '.join(places)}"

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
            writing = _Writing(self._drives.store_id, spec, load, shards)
            results: Sequence[outcome.Outcome[NeedleHead]] = []
            try:
                results = await self._calls.tour([writing.step(target) for target in targets])
            finally:
                self._landed(spec, targets, results, written, tried)
            raise_unexpected(results)
            shards = writing.shards
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
        turn = next(self._turns) % len(numbers)
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
            hold = Hold(volume, is_taken=True)
            targets.append(_Target(shard_index, volume, offset, reserve_to, sent, hold))
        return targets

    def _landed(
        self,
        spec: NeedleSpec,
        targets: Sequence[_Target],
        results: Sequence[outcome.Outcome[NeedleHead]],
        written: dict[int, Written],
        tried: set[int],
    ) -> None:
        """The write is over, in whatever way. No await: places and the dirty set change in one step.

        One that was given up may still be under way: its place is never referred to, its volume is retired.
        """
        stripe_id = spec.stripe_id if spec.kind is NeedleKind.SHARD else None
        for target, result in zip_longest(targets, results):
            volume = target.volume
            self._drives.slots[volume.drive_number].arrived(target.sent)
            tried.add(volume.drive_number)
            head = result.value if isinstance(result, outcome.Value) else None
            self._durability.wrote(volume, None if head is None else stripe_id, target.shard_index)
            target.hold.let_go()
            if isinstance(result, outcome.Error) and isinstance(result.error, OSError):
                self._refused(volume.drive_number, result.error)
            elif head is not None:
                place = ShardPlace(target.shard_index, volume.volume_id, target.offset)
                written[target.shard_index] = Written(place, head, volume)

    async def _take_back(self, needles: Sequence[Written]) -> None:
        """Make needles that came to nothing unreadable, and give their space back, as far as the drives let
        us.

        A commit that was refused must not be found by a recovery beside the one that is made in its place.
        """
        needles = [needle for needle in needles if needle.volume.state is VolumeState.OPEN]
        if not needles:
            return
        holds = [Hold(needle.volume) for needle in needles]
        steps = [
            Step(needle.volume.drive_number, partial(_take_back, needle), hold.let_go)
            for needle, hold in zip(needles, holds, strict=True)
        ]
        try:
            raise_unexpected(await self._calls.tour(steps))
        finally:
            for hold in holds:
                self._durability.wrote(hold.volume, None, 0)
                hold.let_go()

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


class _Writing:
    """What threads do to the bytes: coding once, then checksums, head and write for each drive in turn."""

    def __init__(
        self,
        store_id: bytes,
        spec: NeedleSpec,
        load: Load,
        shards: Sequence[Shard] | Mapping[int, Shard] | None,
    ) -> None:
        self._store_id = store_id
        self._spec = spec
        self._load = load
        self.shards = shards

    def step(self, target: _Target) -> Step:
        return Step(target.volume.drive_number, partial(self._write, target), target.hold.let_go)

    def _write(self, target: _Target) -> NeedleHead:
        """Blocking. Raises OSError."""
        if self.shards is None:
            self.shards = self._load.shards()
        spec, shape, volume, index = self._spec, self._spec.shape, target.volume, target.shard_index
        shard = self.shards[index]
        head = NeedleHead(
            spec.kind,
            self._store_id,
            volume.volume_id,
            target.offset,
            spec.stripe_id,
            index,
            shape.data_count,
            shape.parity_count,
            spec.stripe_kind,
            shape.payload_bytes,
            shape.shard_bytes,
            block_checksums(shard, spec.stripe_id, index),
        )
        try:
            if target.reserve_to:
                reserve_ahead(volume, target.reserve_to)
            write_needle(volume.file, target.offset, encode_head(head), shard, shape.shard_bytes)
            if volume.kind is VolumeKind.DATA:
                start = max(0, target.offset - limits.WRITE_BEHIND_BYTES)
                volume.file.write_behind(start, target.offset + head.needle_bytes - start)
        except OSError:
            _give_back(volume, target.offset, head.needle_bytes)
            raise
        return head


def _give_back(volume: Volume, offset: int, length: int) -> None:
    """Blocking. What was written of a needle before its drive was full would fill that drive for ever."""
    try:
        volume.file.punch(offset, length)
    except OSError as error:
        log.debug("part of a needle in volume %016x stays: %s", volume.volume_id, error)


def _take_back(needle: Written) -> None:
    """Blocking; see Spreader._take_back."""
    try:
        needle.volume.file.write(needle.place.offset, [bytes(FIXED_HEAD_BYTES)])
        needle.volume.file.punch(needle.place.offset, needle.head.needle_bytes)
    except OSError as error:
        log.warning("a needle in volume %016x stays behind: %s", needle.place.volume_id, error)
