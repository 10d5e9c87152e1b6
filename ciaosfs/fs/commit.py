"""Group commit: every interval, and at once for fsync, the whole tree becomes durable as of one moment.

1. *Flush ahead*: dirty bytes are written as stripes while requests go on.
2. *The cut*: the gate closes, what little is still dirty is written, the changeset of the open transaction is taken.
3. The commit needle with that changeset is appended to the log volumes; SQLite commits (without syncing) and the
   next transaction opens; the gate opens.
4. Every volume written since the last sync is synced, in parallel. **This is the commit point.**
5. The fsyncs that waited are answered; dead space may now be given back.

A commit starts only after the sync of the one before it, so after a crash at most the last needle is in doubt. When
step 2 or 3 fails (no space, too few drives) the transaction simply stays open: nothing was promised, nothing is
lost from memory, and the next commit tries again with everything. CONCURRENCY.md walks through the interleavings.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import trio

from ciaosfs.base import clock, limits
from ciaosfs.base.errors import CiaosError, NoSpaceError
from ciaosfs.base.types import VolumeKind
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.files import Files
from ciaosfs.fs.flush import Flusher
from ciaosfs.fs.gate import Gate
from ciaosfs.fs.reclaim import Reclaimer
from ciaosfs.meta.commitlog import CommitRecord, encode_commit
from ciaosfs.meta.counters import Counter
from ciaosfs.meta.metadata import Metadata
from ciaosfs.stripe.store import ChunkStore
from ciaosfs.volume.volume import VolumeState

log = logging.getLogger(__name__)

CUT_DIRTY_BYTES_MAX = 1 * limits.MIB
"""Flushing ahead goes on (a few rounds) until this little is dirty."""
FLUSH_AHEAD_ROUNDS_MAX = 3
ENCODE_INLINE_BYTES_MAX = 32 * limits.KIB
"""Encoding this much takes about as long as a thread hop."""
COMMIT_EARLY = 0.8
"""Share of the commit interval between a cut and the start of the next commit; the rest is for writing and syncing."""


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """The last durable commit, for people: its number, when its cut was made, and why a later one failed, if so."""

    sequence: int
    time_ns: int
    failure: str | None


@dataclass(frozen=True, slots=True)
class CommitStatistics:
    """Counts since the store was opened: commits that became durable and attempts that failed; how long the former took
    from beginning to end, and how much of that the gate was closed, so that changes waited."""

    commits: int = 0
    failures: int = 0
    duration_s: float = 0.0
    gate_closed_s: float = 0.0


class _Round:
    """What the waiters of one commit share."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: CiaosError | None = None


class Committer:
    """Runs the commits; `run` is its task, until it is cancelled. Other methods may be called from any request."""

    def __init__(
        self,
        meta: Metadata,
        chunks: ChunkStore,
        files: Files,
        flusher: Flusher,
        reclaimer: Reclaimer,
        gate: Gate,
        workers: Workers,
        interval_s: float,
        epoch_above: int = 0,
    ) -> None:
        """Commits get an epoch higher than `epoch_above` and than that of the metadata's last commit."""
        self._meta = meta
        self._chunks = chunks
        self._files = files
        self._flusher = flusher
        self._reclaimer = reclaimer
        self._gate = gate
        self._workers = workers
        self._interval_s = interval_s
        self._demand = trio.Event()
        self._round = _Round()
        self._has_ended = False
        self._turn = trio.Lock()
        self._unsynced = False
        self._cut_at = trio.current_time()
        self._volumes_to_note: list[tuple[int, int, VolumeKind, VolumeState]] = []
        state = meta.state.load()
        self._status = CommitStatus(state.sequence, state.time_ns, None)
        self._statistics = CommitStatistics()
        self.epoch = max(clock.now_ns() // 1_000_000, state.epoch + 1, epoch_above + 1)
        self._forced = 0
        """How often a commit was asked for that is made even when nothing has changed, and how many of those are done."""
        self._forced_done = 0
        self._is_checkpoint_due = False

    @property
    def status(self) -> CommitStatus:
        return self._status

    def statistics(self) -> CommitStatistics:
        return self._statistics

    @property
    def is_clean(self) -> bool:
        """Whether everything that ever happened is durable."""
        return (
            not self._unsynced
            and not self._is_forced
            and not self._gate.closed
            and self._files.pending_bytes == 0
            and self._meta.changes_pending() == 0
        )

    def note_volume(self, volume_id: int, drive_number: int, kind: VolumeKind, state: VolumeState) -> None:
        """A volume was made or sealed: the metadata learns of it with the next commit that has something to say.

        Not at once: appending a commit needle may itself need a new volume, when the changeset is already taken.
        """
        self._volumes_to_note.append((volume_id, drive_number, kind, state))

    def forget_drive(self, number: int) -> None:
        """A drive is no longer one of the store: nothing more is to be noted about its volumes."""
        self._volumes_to_note = [note for note in self._volumes_to_note if note[1] != number]

    def demand(self) -> None:
        """Ask for a commit soon, without waiting for it."""
        self._demand.set()

    async def sync(self) -> None:
        """Return when everything done before this call is durable; raises what kept it from being so."""
        if self.is_clean:
            return
        waiting = self._round
        self._demand.set()
        if self._has_ended:
            await self.commit()
        await waiting.done.wait()
        if waiting.error is not None:
            raise waiting.error

    async def wait_commit(self) -> None:
        """As `sync`, but without asking for a commit: when the next one is made for other reasons."""
        if self.is_clean:
            return
        waiting = self._round
        await waiting.done.wait()
        if waiting.error is not None:
            raise waiting.error

    async def run(self) -> None:
        """Commit every interval and on demand, for ever. Cancelled, it answers those who wait."""
        try:
            while True:
                await self._wait_and_commit()
        finally:
            # They may be shielded, and what runs them waits for them before the store is closed.
            self._has_ended = True
            if self._demand.is_set():
                await self.commit()

    async def _wait_and_commit(self) -> None:
        # A change made right after a cut waits longest: begin early enough for it to be durable in time.
        with trio.move_on_at(self._cut_at + COMMIT_EARLY * self._interval_s):
            await self._demand.wait()
        if self.is_clean:
            self._demand = trio.Event()
            self._cut_at = trio.current_time()
            # Who asked between the cut and the end of its sync was covered by it, and nothing has come since.
            answered, self._round = self._round, _Round()
            answered.done.set()
            return
        await self.commit()

    async def close(self) -> None:
        """The last commit; raises what kept it from being durable. Nothing may change the tree any more."""
        await self.commit()
        if self._status.failure is not None:
            raise CiaosError(f"The last changes are not on the drives: {self._status.failure}")

    async def supersede(self) -> bool:
        """A commit that is made even when nothing has changed, to outrank what recovery dropped; whether it is durable.

        Only before `run`; later `commit_anyway`.
        """
        self._forced += 1
        await self.commit()
        return not self._is_forced

    async def commit_anyway(self, *, with_checkpoint: bool = False) -> bool:
        """Wait for a commit whose cut comes after this call, even when nothing has changed; whether it is durable.

        `with_checkpoint`: what it commits is moved into the database file afterwards, unless somebody reads an older moment.
        """
        self._forced += 1
        wanted = self._forced
        self._is_checkpoint_due = self._is_checkpoint_due or with_checkpoint
        try:
            await self.sync()
        except CiaosError:
            return False
        return self._forced_done >= wanted

    @property
    def _is_forced(self) -> bool:
        return self._forced > self._forced_done

    async def copy_again(self, record: CommitRecord) -> None:
        """Write and sync the last commit once more, for more drives to have it. A full store goes on without."""
        try:
            await self._chunks.append_commit(record.sequence, encode_commit(record))
            await self._chunks.sync()
        except NoSpaceError as error:
            log.warning("commit %d stays on fewer drives than it should: %s", record.sequence, error)

    async def commit(self) -> None:
        """One commit, steps 1 to 5. Errors go to the waiters and into `status`, not to the caller.

        Runs to its end once begun: a cancelled commit would leave the gate closed or waiters unanswered.
        """
        with trio.CancelScope(shield=True):
            async with self._turn:
                await self._commit()

    async def _commit(self) -> None:
        self._demand = trio.Event()
        error: CiaosError | None = None
        answered = self._round
        began_s, closed_s = trio.current_time(), 0.0
        try:
            if self._unsynced:
                # The sync of the commit before failed: as long as it does, no other commit may follow.
                await self._sync()
            await self._flush_ahead()
            self._gate.close()
            self._cut_at = trio.current_time()
            try:
                # Whoever asked until now is covered; whoever asks from here on waits for the next commit.
                answered, self._round = self._round, _Round()
                forced = self._forced
                sequence, time_ns = await self._cut()
            finally:
                self._gate.open()
                closed_s = trio.current_time() - self._cut_at
            await self._sync()
            self._forced_done = forced
            self._status = CommitStatus(sequence, time_ns, None)
        except CiaosError as failure:
            error = failure
        except Exception as failure:  # our bug: those who wait must hear of it, the mount stays up
            log.exception("commit failed")
            error = CiaosError(f"The commit failed: {failure!r}")
        if answered is self._round:
            self._round = _Round()
        if error is not None:
            self._failed(error)
        else:
            self._succeeded(trio.current_time() - began_s, closed_s)
        answered.error = error
        answered.done.set()
        if error is None:
            await self._after()

    def _succeeded(self, duration_s: float, gate_closed_s: float) -> None:
        sums = self._statistics
        self._statistics = replace(
            sums,
            commits=sums.commits + 1,
            duration_s=sums.duration_s + duration_s,
            gate_closed_s=sums.gate_closed_s + gate_closed_s,
        )

    def _failed(self, error: CiaosError) -> None:
        if self._status.failure is None:
            log.error("commit failed, will be tried again: %s", error)
        self._status = CommitStatus(self._status.sequence, self._status.time_ns, str(error))
        self._statistics = replace(self._statistics, failures=self._statistics.failures + 1)

    async def _sync(self) -> None:
        """Step 4: the last commit that was cut becomes durable."""
        await self._chunks.sync()
        self._unsynced = False
        self._reclaimer.synced()

    async def _flush_ahead(self) -> None:
        for _ in range(FLUSH_AHEAD_ROUNDS_MAX):
            if self._files.pending_bytes <= CUT_DIRTY_BYTES_MAX:
                return
            await self._flusher.flush_ahead()

    async def _cut(self) -> tuple[int, int]:
        """Steps 2 and 3, with the gate closed; returns (sequence, time_ns) of what the next sync makes durable."""
        await self._flusher.flush_all()
        if self._meta.changes_pending() == 0 and not self._is_forced:
            return self._meta.state.load().sequence, clock.now_ns()
        for volume in self._volumes_to_note:
            self._meta.volumes.note(*volume)
        self._volumes_to_note.clear()
        state = self._meta.state.successor(
            epoch=self.epoch, time_ns=clock.now_ns(), log_volume_min=self._chunks.log_volume_min()
        )
        self._meta.state.save(state)
        changeset = self._meta.take_changeset()
        record = CommitRecord.make(state, changeset)
        if len(changeset) <= ENCODE_INLINE_BYTES_MAX:
            payload = encode_commit(record)
        else:
            payload = await self._workers.run(encode_commit, record)
        await self._chunks.append_commit(state.sequence, payload)
        self._meta.commit()
        self._meta.counters.add(Counter.LOG_BYTES, len(payload))
        self._unsynced = True
        self._reclaimer.committed()
        return state.sequence, state.time_ns

    async def _after(self) -> None:
        """Work that may only follow a sync: move SQLite's log into the database."""
        try:
            is_due, self._is_checkpoint_due = self._is_checkpoint_due, False
            await self._meta.checkpoint_if_due(self._workers.run, now=is_due)
        except (CiaosError, OSError) as error:
            log.warning("after commit %d: %s", self._status.sequence, error)
