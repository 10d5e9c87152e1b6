"""What is too much for one step is deleted in slices: the extents of large files that were removed or cut short.

A slice takes well under a millisecond, and a commit gets only as many of them as it can take: then they wait for it.
Mostly nobody is in a hurry and requests go first. Two are: a writer that meets a full store (`finish`), and one that
wants to make a file longer that was just cut short, whose old bytes would come back (`wait`).
"""

from __future__ import annotations

import trio

from ciaosfs.base import limits
from ciaosfs.base.errors import CiaosError
from ciaosfs.fs.commit import Committer
from ciaosfs.fs.gate import Gate
from ciaosfs.fs.reclaim import Reclaimer
from ciaosfs.meta.metadata import Metadata

LOOK_S = 1.0
"""Between two looks whether there is anything to delete, and after a commit that failed."""
PAUSE_S = 0.002
"""Between two slices that nobody waits for."""


class _Turn:
    """What those who wait for a trim share: it ends with a trim, or with the error of a commit."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.error: CiaosError | None = None


class Slicer:
    """`run` is its task, until it is cancelled; who waits for a trim depends on it. For the loop."""

    def __init__(self, meta: Metadata, reclaimer: Reclaimer, committer: Committer, gate: Gate) -> None:
        self._meta = meta
        self._trims = meta.trims
        self._reclaimer = reclaimer
        self._committer = committer
        self._gate = gate
        self._wanted: dict[int, int] = {}
        """How many wait for the trim of an inode."""
        self._called = trio.Event()
        self._turn = _Turn()

    def is_in_way(self, ino: int, end: int) -> bool:
        """Whether old extents would show if the file reached to `end`. Cheap."""
        size = self._trims.size(ino)
        return size is not None and end > size

    async def wait(self, ino: int, end: int) -> None:
        """Return when they do not; look at the gate again then. Raises what keeps commits from being made (CiaosError)."""
        self._wanted[ino] = self._wanted.get(ino, 0) + 1
        try:
            while self.is_in_way(ino, end):
                self._called.set()
                turn = self._turn
                await turn.ended.wait()
                if turn.error is not None:
                    raise turn.error
        finally:
            self._wanted[ino] -= 1
            if not self._wanted[ino]:
                del self._wanted[ino]

    async def finish(self) -> None:
        """Delete everything that waits; others run between the slices. Raises as `wait`."""
        await self._gate.wait_open()
        while self._step():
            await self._let_commit()
            await trio.lowlevel.checkpoint()
            await self._gate.wait_open()

    async def run(self) -> None:
        """Delete what waits, for ever."""
        while True:
            await self._gate.wait_open()
            if not self._step():
                self._called = trio.Event()
                with trio.move_on_after(LOOK_S):
                    await self._called.wait()
                continue
            try:
                await self._let_commit()
            except CiaosError as error:  # the committer has said so, and tries again
                self._end_turn(error)
                await trio.sleep(LOOK_S)
            if self._wanted:
                await trio.lowlevel.checkpoint()
            else:
                await trio.sleep(PAUSE_S)

    def _step(self) -> bool:
        """One slice, of what is waited for if anything is; False when nothing is left."""
        ino = next(iter(self._wanted), None)
        if ino is None:
            return self._reclaimer.step()
        if self._reclaimer.trim_step(ino):
            self._end_turn()
        return True

    def _end_turn(self, error: CiaosError | None = None) -> None:
        turn, self._turn = self._turn, _Turn()
        turn.error = error
        turn.ended.set()

    async def _let_commit(self) -> None:
        """A transaction that is large enough is committed before it grows further."""
        if self._meta.database.changeset_bytes > limits.COMMIT_CHANGESET_BYTES:
            await self._committer.sync()
