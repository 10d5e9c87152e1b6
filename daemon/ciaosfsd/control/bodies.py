"""The memory that bodies of all clients may take, given out as their bytes arrive.

A *lease* is what one request holds: the bytes of its body as far as they have come, and room for that of its answer. Who
is slow holds no more than what was sent. One user's clients together hold at most a share, so that they slow down
each other and nobody else. Of the bodies that are still arriving the oldest may use room that is kept for it: so there is
always one that goes on, however many are half there. Who has his whole body does not wait for room again, and
will give it back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import trio

from ciaosfs.base import limits


class Lease:
    """What one request holds. A context manager that gives it back. Made by `BodyBudget.lease`."""

    def __init__(self, budget: BodyBudget, uid: int) -> None:
        self._budget = budget
        self.uid = uid
        self.held = 0

    async def extend(self, amount: int) -> None:
        """Hold `amount` bytes more; waits until there is room."""
        await self._budget.take(self, amount)

    def shrink(self, amount: int) -> None:
        """Give back `amount` bytes."""
        self._budget.give_back(self, amount)

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """While in this context the body is not there yet."""
        self._budget.arriving[self] = None
        try:
            yield
        finally:
            del self._budget.arriving[self]
            self._budget.serve_waiting()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shrink(self.held)


class BodyBudget:
    """The memory of all leases: `held` is at most `bytes_max` and one body."""

    def __init__(
        self,
        bytes_max: int = limits.CONTROL_BODIES_BYTES_MAX,
        user_bytes_max: int = limits.CONTROL_BODIES_USER_BYTES_MAX,
    ) -> None:
        self._bytes_max = bytes_max
        self._user_bytes_max = user_bytes_max
        self._kept_bytes = limits.CONTROL_BODY_BYTES_MAX
        self.held = 0
        self._held_by: dict[int, int] = {}
        self._waiting: dict[trio.Event, tuple[Lease, int]] = {}
        self.arriving: dict[Lease, None] = {}
        """Those whose bodies are not there yet, oldest first."""

    def lease(self, uid: int) -> Lease:
        """A lease for a request of user `uid`, holding nothing so far."""
        return Lease(self, uid)

    async def take(self, lease: Lease, amount: int) -> None:
        """In the order of asking; but who has his share does not stop others."""
        turn = trio.Event()
        self._waiting[turn] = lease, amount
        self.serve_waiting()
        try:
            await turn.wait()
        except trio.Cancelled:
            if turn.is_set():
                self.give_back(lease, amount)
            self._waiting.pop(turn, None)
            self.serve_waiting()
            raise

    def give_back(self, lease: Lease, amount: int) -> None:
        if amount:
            self._note(lease, -amount)
            self.serve_waiting()

    def serve_waiting(self) -> None:
        is_full = False
        for turn, (lease, amount) in list(self._waiting.items()):
            has_share = self._held_by.get(lease.uid, 0) + amount <= self._user_bytes_max
            fits = self.held + amount <= self._bytes_max
            has_kept_room = (
                self._is_oldest(lease) and self.held + amount <= self._bytes_max + self._kept_bytes
            )
            if has_kept_room or (has_share and fits and not is_full):
                del self._waiting[turn]
                self._note(lease, amount)
                turn.set()
            elif has_share:
                is_full = True

    def _is_oldest(self, lease: Lease) -> bool:
        return next(iter(self.arriving), None) is lease

    def _note(self, lease: Lease, change: int) -> None:
        lease.held += change
        self.held += change
        held = self._held_by.get(lease.uid, 0) + change
        if held:
            self._held_by[lease.uid] = held
        else:
            self._held_by.pop(lease.uid, None)
