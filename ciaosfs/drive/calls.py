"""Every blocking call on a drive, watched: none is waited for without end, and a drive that lags is noticed.

Reads are begun with `lane(number).read`, and may be hedged by who waits for them (`stripe/gathering.py`). Everything
else is a *step* of a *tour* (`tours.py`), or by itself a `call`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple, cast

import outcome

from ciaosfs.base import limits
from ciaosfs.drive.lanes import Lane
from ciaosfs.drive.patience import HedgeBudget, bound_all
from ciaosfs.drive.tours import Step, take_tour
from ciaosfs.drive.watch import Watch
from ciaosfs.drive.workers import Workers

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True)
class DriveCallStatistics:
    """`lagging` and `hanging` are numbers of drives at this moment; `set_aside` counts how often one was."""

    lagging: tuple[int, ...]
    hanging: tuple[int, ...]
    set_aside: int


class DriveCalls:
    """For the loop.

    `can_spare` says whether the store can go on without a drive; `on_hang` is called when one is given up, and must not
    raise. At most `spare_max` drives (the store's parity) are read round at a time.
    """

    def __init__(
        self,
        workers: Workers,
        spare_max: int,
        can_spare: Callable[[int], bool],
        on_hang: Callable[[int, str], None],
    ) -> None:
        self.workers = workers
        self.watch = Watch(workers)
        self.budget = HedgeBudget()
        self._spare_max = spare_max
        self._can_spare = can_spare
        self._on_hang = on_hang
        self._lanes: dict[int, Lane] = {}
        self._set_aside = 0

    def start(self) -> None:
        """Begin to watch."""
        self.watch.start()

    def close(self) -> None:
        """No more calls are begun, and nobody waits for those under way. None of them makes its drive hang any more; see
        `Watch.close` for when the pool can be left."""
        self.watch.close()

    def lane(self, number: int) -> Lane:
        """The calls of drive `number`."""
        lane = self._lanes.get(number)
        if lane is None:
            lane = self._lanes[number] = Lane(number, self)
        return lane

    def renew(self, number: int) -> None:
        """Another drive is in this place, or the same one anew: nothing is known of it."""
        self._lanes.pop(number, None)

    def hangs_now(self, number: int) -> bool:
        """Whether a call on the drive was given up and has not come back."""
        return self.lane(number).hangs

    def may_avoid(self) -> bool:
        """Whether drives that lag may be read round: when there are too many it is no single drive's fault."""
        return sum(lane.is_to_be_avoided for lane in self._lanes.values()) <= self._spare_max

    def in_time_count(self) -> int:
        """On how many drives that were ever called no read is late at this moment."""
        return sum(not lane.has_late for lane in self._lanes.values())

    async def call(
        self,
        number: int,
        function: Callable[[*Ts], T],
        *args: *Ts,
        release: Callable[[], None] | None = None,
        undo: Callable[[T], None] | None = None,
    ) -> T:
        """Make one call on a drive. Raises DriveHangsError when it passes the deadline, and what it raises.

        `release` and `undo` are as in `Step`. Cancelled as `Workers.run`.
        """
        (result,) = await self.tour([Step(number, lambda: function(*args), release, undo)])
        return cast(T, result.unwrap())

    async def tour(self, steps: Sequence[Step]) -> list[outcome.Outcome[Any]]:
        """Make calls on several drives in turn, in one thread; see `tours.take_tour`."""
        return await take_tour(self, steps, [self.lane(step.number) for step in steps])

    # For lanes and tours

    def look_at_peers(self) -> None:
        """Let each drive's bounds follow what it needs now, and what the others do."""
        bound_all([lane.patience for lane in self._lanes.values()])

    def deadline_s(self, number: int) -> float:
        """How long a call on the drive may take at this moment."""
        if self.lane(number).hangs:
            return limits.DRIVE_HANGING_S
        if not self._can_spare(number):
            return limits.DRIVE_DEADLINE_S_MAX
        silent = {call.number for call in self.watch.older_than(limits.DRIVE_DEADLINE_S / 2)}
        silent.update(lane.number for lane in self._lanes.values() if lane.hangs)
        return limits.DRIVE_DEADLINE_S if len(silent) <= self._spare_max else limits.DRIVE_DEADLINE_S_MAX

    def hangs(self, lane: Lane) -> None:
        """A call in the lane was given up, the first one. Its drive is set aside, if it has not left meanwhile."""
        if self._lanes.get(lane.number) is not lane:
            return  # another drive is in this place now, or the same one, which came back: it is not to blame
        self._set_aside += 1
        self._on_hang(lane.number, f"it has not answered for {limits.DRIVE_DEADLINE_S:.0f} s")

    def statistics(self) -> DriveCallStatistics:
        lanes = sorted(self._lanes.values(), key=lambda lane: lane.number)
        return DriveCallStatistics(
            tuple(lane.number for lane in lanes if lane.patience.lags),
            tuple(lane.number for lane in lanes if lane.hangs),
            self._set_aside,
        )
