"""The cut: a short time in which no change joins, so that a commit is one moment of everything.

Every mutation waits for the gate first and then runs without an await until it is complete. The committer alone
closes it.
"""

from __future__ import annotations

import trio


class Gate:
    """Open or closed. `closed` is read on every mutation, hence a plain attribute."""

    __slots__ = ("_cuts", "_opened", "closed")

    def __init__(self) -> None:
        self.closed = False
        self._cuts = trio.lowlevel.ParkingLot()
        self._opened = trio.Event()
        self._opened.set()

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        self._opened = trio.Event()

    def open(self) -> None:
        self.closed = False
        self._opened.set()
        self._cuts.unpark_all()

    async def wait_cut(self) -> None:
        """Return when the gate, which may be closed by now or not, has been opened again after a cut."""
        await self._cuts.park()

    async def wait_open(self) -> None:
        """Return at a moment when the gate is open. The caller goes on without an await."""
        while self.closed:
            await self._opened.wait()
