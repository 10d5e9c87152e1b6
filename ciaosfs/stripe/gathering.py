"""A range of one shard: from the drive it lies on, or decoded from the same range of others, whichever is there first.

A *race* begins with the drive that has the bytes, alone. When that lags (see `drive/patience.py`) the same range of as
many other shards as are needed is asked for besides: the read is *hedged*. When the drive is known to lag the others are
asked at once, and it is left alone but for a probe now and then: the read goes *round* it. When the shard is missing or
bad the others are all there is. Those that lag in turn are replaced by further ones. The first whole answer wins; what is
still under way then goes on by itself, is timed, and otherwise ignored: see CONCURRENCY.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import outcome
import trio

from ciaosfs.base import clock, limits
from ciaosfs.base.errors import (
    DriveGoneError,
    ShardDamagedError,
    StoreError,
    StripeLostError,
)
from ciaosfs.base.types import Buffer, ShardPlace, StripeRecord
from ciaosfs.codec.checksum import verify_blocks
from ciaosfs.codec.erasure import reconstruct
from ciaosfs.drive.calls import DriveCalls
from ciaosfs.drive.lanes import Lane, ReadCall
from ciaosfs.drive.workers import Workers
from ciaosfs.stripe.damage import DamageReports, no_volume
from ciaosfs.stripe.fetching import ShardFetcher
from ciaosfs.stripe.layout import ShardRange, place_of, plan_degraded

DECODE_INLINE_BYTES_MAX = 64 * limits.KIB
"""Decoding a range of a shard this long takes less time than a thread hop."""


class Gatherer:
    """For the loop. Counts what its races came to."""

    def __init__(
        self, shards: ShardFetcher, workers: Workers, calls: DriveCalls, damage: DamageReports
    ) -> None:
        self.shards = shards
        self.calls = calls
        self.damage = damage
        self._workers = workers
        self.degraded = 0
        self.hedges = 0
        self.hedges_won = 0
        self.rounds = 0

    async def read(
        self, stripe: StripeRecord, wanted: ShardRange, *, with_neighbours: bool = False
    ) -> Buffer:
        """One range of one shard. Raises StripeLostError and DriveGoneError as ChunkStore.read.

        Nearly always the drive that has it answers in time, and no race is made.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self.calls.budget.read()
        place = place_of(stripe, wanted.shard_index)
        call = None
        if place is not None:
            volume = self.shards.files.get(place.volume_id)
            if volume is not None:
                lane = self.calls.lane(volume.drive_number)
                if not lane.is_to_be_avoided:
                    _, start, length = wanted
                    args = (stripe, place, start, length, with_neighbours)
                    call = lane.read(self, length, self.shards.fetch, args)
                    call.task = trio.lowlevel.current_task()
                    await trio.lowlevel.wait_task_rescheduled(call.abort)
                    if type(call.result) is outcome.Value:
                        return cast(Buffer, call.result.value)
        race = _Race(self, stripe, wanted, with_neighbours)
        await race.run(place, call)
        return race.own_data if race.own_data is not None else await self._decode(race)

    def read_ended(self, call: ReadCall) -> None:
        """See lanes.ReadOwner: of a read that nothing else races with."""
        self._wake(call)

    def read_late(self, call: ReadCall) -> bool:
        """See lanes.ReadOwner: let the race begin."""
        if not self.may_hedge(call, call.args[0].data_count):
            return False
        self.hedges += 1
        self._wake(call)
        return True

    def _wake(self, call: ReadCall) -> None:
        """Once: the read may end between its being late and the task's running."""
        task, call.task = call.task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def may_hedge(self, call: ReadCall, data_count: int) -> bool:
        """Whether others may be asked besides. For a drive known to lag nothing is taken from the budget, nor for a read
        that is later than late while enough others are in time: then it is not all of them that are slow."""
        if call.lane.is_to_be_avoided and self.calls.may_avoid():
            return True
        if self.calls.budget.take():
            return True
        is_new = call.started_s and clock.monotonic_s() - call.started_s < limits.READ_LATE_S_MAX
        return not is_new and self.calls.in_time_count() >= data_count

    def may_go_round(self, lane: Lane, data_count: int) -> bool:
        """Whether a drive that is to be avoided can be left alone, though it may be no single drive's fault."""
        if self.calls.may_avoid():
            return True
        return lane.is_clogged and (self.calls.in_time_count() >= data_count or self.calls.budget.take())

    async def _decode(self, race: _Race) -> Buffer:
        """The wanted range from the widened one of others.

        When the shard's own head is known the range was widened to whole blocks, and the result is checked as if it had
        been read.
        """
        stripe, wanted, low = race.stripe, race.wanted, race.low
        if stripe.data_count == 1 or race.high - low <= DECODE_INLINE_BYTES_MAX:
            data = _reconstruct(stripe, race.good, wanted.shard_index)
        else:
            data = await self._workers.run(_reconstruct, stripe, race.good, wanted.shard_index)
        if race.sums is not None:
            first = low // limits.CHECK_BLOCK_BYTES
            if verify_blocks(data, race.sums, first, stripe.stripe_id, wanted.shard_index) is not None:
                raise StripeLostError(
                    f"Shard {wanted.shard_index} of stripe {stripe.stripe_id} was decoded from verified shards "
                    "and fails its own checksums: the shards do not belong together."
                )
        return memoryview(data)[wanted.start - low : wanted.start - low + wanted.length]


class _Race:
    """One range on its way. All state is the loop's; it is over when `own_data` is there, or enough is `good`."""

    __slots__ = (
        "_error",
        "_gatherer",
        "_is_hedged",
        "_is_over",
        "_late",
        "_neighbours",
        "_others",
        "_own",
        "_reserve",
        "_task",
        "_unreachable",
        "_waiting",
        "good",
        "high",
        "low",
        "own_data",
        "stripe",
        "sums",
        "wanted",
    )

    def __init__(
        self, gatherer: Gatherer, stripe: StripeRecord, wanted: ShardRange, with_neighbours: bool
    ) -> None:
        self.stripe = stripe
        self.wanted = wanted
        self.own_data: Buffer | None = None
        self.good: dict[int, memoryview] = {}
        self.low = self.high = 0
        self.sums: Any = None
        self._gatherer = gatherer
        self._neighbours = with_neighbours
        self._own: ReadCall | None = None
        self._reserve: ShardPlace | None = None
        """The wanted shard's place, as long as it is kept for when the others do not suffice."""
        self._others: dict[ReadCall, ShardPlace] = {}
        self._late = 0
        """How many of the others under way lag."""
        self._waiting: list[ShardPlace] | None = None
        """Others not asked yet, the best last; None while none are needed."""
        self._unreachable = 0
        """Shards that may be whole where they are."""
        self._is_hedged = False
        self._is_over = False
        self._error: BaseException | None = None
        self._task: trio.lowlevel.Task | None = None

    async def run(self, place: ShardPlace | None, own: ReadCall | None) -> None:
        """Returns when the race is over; raises when it cannot be won. `own` is the read at `place` if one was begun,
        and has failed or is late."""
        self._begin(place, own)
        if not self._is_over:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._error is not None:
            raise self._error
        if self._is_hedged and self.own_data is None:
            self._gatherer.hedges_won += 1

    def _abort(self, _: Callable[[], None]) -> trio.lowlevel.Abort:
        self._task = None
        self._end()
        return trio.lowlevel.Abort.SUCCEEDED

    def _begin(self, place: ShardPlace | None, own: ReadCall | None) -> None:
        gatherer = self._gatherer
        volume = None if place is None else gatherer.shards.files.get(place.volume_id)
        if own is not None and own.owner is not None:
            self._own, own.owner = own, self
            self._is_hedged = True
            self._gather()
        elif own is not None:
            assert place is not None and isinstance(own.result, outcome.Error)
            self._failed(place, own.result.error)
            if not self._is_over:
                self._gather_degraded()
        elif place is None:
            self._gather_degraded()
        elif volume is None:
            self._failed(place, no_volume(place))
            self._gather_degraded()
        else:
            lane = gatherer.calls.lane(volume.drive_number)
            if not gatherer.may_go_round(lane, self.stripe.data_count):
                self._ask_own(place)
                return
            gatherer.rounds += 1
            if lane.take_probe():
                self._ask_own(place)
            else:
                self._reserve = place
            self._gather()

    # Asking

    def _ask_own(self, place: ShardPlace) -> None:
        wanted = self.wanted
        try:
            self._own = self._read(place, wanted.start, wanted.length, self._neighbours)
        except DriveGoneError as error:
            self._failed(place, error)
            self._gather_degraded()

    def _read(self, place: ShardPlace, start: int, length: int, with_neighbours: bool = False) -> ReadCall:
        """Raises DriveGoneError when the volume is on no drive that is there, or its drive hangs."""
        shards = self._gatherer.shards
        volume = shards.files.get(place.volume_id)
        if volume is None:
            raise no_volume(place)
        lane = self._gatherer.calls.lane(volume.drive_number)
        return lane.read(self, length, shards.fetch, (self.stripe, place, start, length, with_neighbours))

    def _gather_degraded(self) -> None:
        self._gatherer.degraded += self._waiting is None
        self._gather()

    def _gather(self) -> None:
        """Ask for as many others as are still needed, and end the race when there is nothing left to wait for."""
        if self._waiting is None:
            self._line_up()
        assert self._waiting is not None
        needed = self.stripe.data_count
        while self._waiting and len(self.good) + len(self._others) - self._late < needed:
            place = self._waiting.pop()
            try:
                call = self._read(place, self.low, self.high - self.low)
            except DriveGoneError as error:
                self._failed(place, error)
            else:
                self._others[call] = place
        if len(self.good) >= needed:
            self._end()
        elif len(self.good) + len(self._others) - self._late < needed and self._reserve is not None:
            place, self._reserve = self._reserve, None
            self._ask_own(place)
        elif not self._others and self._own is None:
            self._error = self._nothing_left()
            self._end()

    def _line_up(self) -> None:
        """Data before parity, which decodes cheapest; drives that lag at last."""
        gatherer, wanted = self._gatherer, self.wanted
        self.low, self.high = wanted.start, wanted.start + wanted.length
        place = place_of(self.stripe, wanted.shard_index)
        known = None if place is None else gatherer.shards.known(place)
        if known is not None:
            unit = limits.CHECK_BLOCK_BYTES
            self.low = self.low // unit * unit
            self.high = min(self.stripe.shard_bytes, -(-self.high // unit) * unit)
            self.sums = known.head.sums
        places = plan_degraded(self.stripe, wanted.shard_index)
        places.sort(key=self._is_on_avoided)
        places.reverse()
        self._waiting = places

    def _is_on_avoided(self, place: ShardPlace) -> bool:
        volume = self._gatherer.shards.files.get(place.volume_id)
        return volume is not None and self._gatherer.calls.lane(volume.drive_number).is_to_be_avoided

    # Answers, in the loop

    def read_ended(self, call: ReadCall) -> None:
        """See lanes.ReadOwner."""
        result = call.result
        if call is self._own:
            self._own = None
            if isinstance(result, outcome.Value):
                self.own_data = result.value
                self._end()
                return
            place = place_of(self.stripe, self.wanted.shard_index)
        else:
            place = self._others.pop(call)
            self._late -= call.is_answered_for
            if isinstance(result, outcome.Value):
                self.good[place.shard_index] = result.value
                self._gather()
                return
        assert place is not None and isinstance(result, outcome.Error)
        self._failed(place, result.error)
        if not self._is_over:
            self._gather_degraded()

    def read_late(self, call: ReadCall) -> bool:
        """See lanes.ReadOwner."""
        is_useful = self._waiting is None or bool(self._waiting) or self._reserve is not None
        if is_useful and not self._gatherer.may_hedge(call, self.stripe.data_count):
            return False
        call.is_answered_for = True
        if call is not self._own:
            self._late += 1
        elif not self._is_hedged:
            self._is_hedged = True
            self._gatherer.hedges += 1
        self._gather()
        return True

    def _failed(self, place: ShardPlace, error: BaseException) -> None:
        if isinstance(error, (ShardDamagedError, StoreError, DriveGoneError, OSError)):
            self._unreachable += not self._gatherer.damage.report(self.stripe, place, error)
        else:
            self._error = error  # our bug: whoever reads must hear of it
            self._end()

    def _nothing_left(self) -> DriveGoneError | StripeLostError:
        stripe, count = self.stripe, len(self.good)
        if count + self._unreachable >= stripe.data_count:
            return DriveGoneError(
                f"Stripe {stripe.stripe_id} needs {stripe.data_count} shards and {count} can be reached: "
                "look after the drives that are absent or failing."
            )
        return StripeLostError(
            f"Stripe {stripe.stripe_id} is lost: {count} good shards are left of the {stripe.data_count} it needs."
        )

    def _end(self) -> None:
        """Over: let go of what is still under way, and wake who waits."""
        self._is_over = True
        under_way = [*self._others, *([] if self._own is None else [self._own])]
        self._others, self._own = {}, None
        for call in under_way:
            call.let_go()
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)


def _reconstruct(stripe: StripeRecord, good: dict[int, memoryview], wanted: int) -> Buffer:
    chosen: dict[int, Buffer] = dict(good)
    return reconstruct(chosen, stripe.data_count, stripe.parity_count, [wanted])[wanted]
