"""The chunk store: payloads in, verified bytes out, over the drives that are there. The one facade of this
floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from ciaosfs.base.clock import IdSource
from ciaosfs.base.types import Buffer, Space, StripeKind, StripeRecord, VolumeKind
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.drive.workers import Workers
from ciaosfs.volume.driveset import DriveSet, DriveState, DriveStatus

__all__ = ["ChunkStore", "ChunkStoreStatistics", "DriveSet", "DriveState", "DriveStatus", "LogEntry"]

OnDamage = Callable[[int, int, str], None]
"""(stripe id, shard index, reason): a shard was found missing or damaged while it was needed."""
OnVolume = Callable[[int, int, VolumeKind, str], None]
"""(volume id, drive number, kind, state): a volume was made or changed its state."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One commit or image root found on the drives; all its copies count as one entry."""

    kind: NeedleKind
    sequence: int

    def payload(self) -> bytes:
        """Read and verify. Blocking. ShardDamagedError when no copy is whole: a crash tore the last commit,
        which then never happened."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ChunkStoreStatistics:
    stripes_written: int


class ChunkStore:
    """See the module. An async context manager; owns the DriveSet from entering on."""

    def __init__(
        self,
        drives: DriveSet,
        store_id: bytes,
        data_count: int,
        parity_count: int,
        ids: IdSource,
        workers: Workers,
    ) -> None:
        self.on_damage: OnDamage = lambda stripe_id, shard_index, reason: None
        self.on_volume: OnVolume = lambda volume_id, number, kind, state: None

    async def __aenter__(self) -> ChunkStore:
        """DriveGoneError, naming what is absent, when fewer than `data_count` drives are there."""
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes files and drives; syncs nothing."""

    async def write_stripe(
        self, pieces: Sequence[Buffer], kind: StripeKind = StripeKind.FILE
    ) -> StripeRecord:
        """Code and write the concatenation of `pieces` (1 byte to STRIPE_PAYLOAD_BYTES_MAX), not yet synced.

        The pieces must not change until this returns. Raises NoSpaceError, DriveGoneError.
        """
        raise NotImplementedError

    def read_nowait(self, stripe: StripeRecord, offset: int, length: int) -> Buffer | None:
        """Verified payload bytes if they are in the page cache, else None. In the loop, never blocks or
        raises."""
        raise NotImplementedError

    async def read(self, stripe: StripeRecord, offset: int, length: int) -> Buffer:
        """Verified payload bytes. StripeLostError; DriveGoneError when absent drives, not damage, are the
        cause."""
        raise NotImplementedError

    async def is_readable(self, stripe: StripeRecord) -> bool:
        """Whether the whole payload can be read and verified now."""
        raise NotImplementedError

    def advise(self, stripe: StripeRecord) -> None:
        """Ask the drives for the data shards of a stripe that will be read soon. For a worker thread; never
        raises."""

    async def append_commit(self, sequence: int, payload: Buffer, image_root: bool = False) -> None:
        """Append a commit (or image root) needle to the log volumes of m+1 drives, not yet synced.

        NoSpaceError, DriveGoneError: then the copies that were written are taken back.
        """

    async def sync(self) -> None:
        """Make everything durable that was written before this call.

        DriveGoneError when so many drives failed that something written is lost; all later calls raise it
        too.
        """

    async def discard(self, records: Sequence[StripeRecord]) -> None:
        """Give the space of dead stripes back. Call when the commit that made them dead is durable. Never
        raises for drives that are absent or fail."""

    def space(self) -> Space:
        """Usable space in payload bytes; cheap enough to ask for every write."""
        raise NotImplementedError

    async def refresh_drives(self) -> list[DriveStatus]:
        """Look which drives are there and measure them; take in those that came back."""
        raise NotImplementedError

    def drive_statuses(self) -> list[DriveStatus]:
        raise NotImplementedError

    def log_volume_min(self) -> int:
        """A commit appended from now on lies in a log volume with this id or a higher one."""
        raise NotImplementedError

    def scan_log(self, volume_id_min: int) -> Iterator[LogEntry]:
        """All commits and image roots in log volumes from `volume_id_min` on, in any order. Blocking."""
        raise NotImplementedError

    def statistics(self) -> ChunkStoreStatistics:
        raise NotImplementedError
