"""From whatever a crash left to one consistent moment: the newest commit whose data is on the drives.

The drives hold the truth, SQLite is its index. Cases, each with a test of its name in tests/crash:

- *clean or killed*: the database's last commit is the tip of the log; nothing to do.
- *database behind* (power cut lost the tail of its WAL, or the process died between needle and SQLite commit):
  the changesets after it are applied in order.
- *database ahead* (its WAL survived a power cut that the needle did not): its newest commit is cut off. What a
  checkpoint has copied never runs ahead of what is synced; then as above.
- *database gone or damaged*: a fresh one, all changesets applied from the beginning (or the last image).

The last commit may be in doubt, because only its sync was the promise. It counts if every stripe it brings can be
read, and is dropped otherwise: nobody was told that it was durable.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from ciaosfs.base.errors import LogDamagedError
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.drive.workers import Workers
from ciaosfs.meta.commitlog import CommitRecord, choose_chain, decode_commit
from ciaosfs.meta.metadata import Metadata
from ciaosfs.stripe.store import ChunkStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recovered:
    """An open database at the chosen moment, and sentences about what had to be done, for the log and `status`."""

    meta: Metadata
    reports: tuple[str, ...]


async def recover(
    database: Path, store_id: bytes, chunks: ChunkStore, workers: Workers, *, is_same_boot: bool
) -> Recovered:
    """Open the database and bring it to the tip of the log. LogDamagedError when no whole chain of commits is left.

    `is_same_boot` says that the machine has not gone down since the store was last written: then what was
    written can be read, synced or not, and the stripes of the last commit need no reading.
    """
    reports: list[str] = []
    meta = _open_existing(database, reports)
    chain = None
    while meta is not None:
        chain = await _chain_after(meta, chunks, workers)
        if chain is not None:
            break
        # Ahead of the drives, or on a branch that was given up: go back commit by commit. More than one step is
        # rare, since a commit begins only when the one before it is synced.
        sequence = meta.state.load().sequence
        meta.close()
        meta = _open_existing(database, reports, drop_newest=True)
        if meta is not None:
            reports.append(f"Commit {sequence} of the database was not on the drives and was dropped.")
    if meta is None:
        meta = Metadata.create_fresh(database, store_id)
        chain = await _chain_after(meta, chunks, workers)
        if chain is None:
            meta.close()
            raise LogDamagedError(
                "The drives hold commits, but not all of them from the beginning: "
                "connect the missing drives and mount again."
            )
        if chain:
            reports.append(f"The database was gone or damaged and is rebuilt from the drives: {len(chain)} commits.")
    assert chain is not None
    await _apply(meta, chain, chunks, reports, is_same_boot=is_same_boot)
    for report in reports:
        log.warning("%s", report)
    return Recovered(meta, tuple(reports))


def _open_existing(database: Path, reports: list[str], *, drop_newest: bool = False) -> Metadata | None:
    if not database.exists():
        return None
    try:
        return Metadata.open(database, drop_wal=drop_newest)
    except LogDamagedError as error:
        reports.append(f"The database is damaged ({error}).")
        return None


async def _chain_after(meta: Metadata, chunks: ChunkStore, workers: Workers) -> list[CommitRecord] | None:
    """The commits from the database's moment to the tip; None when its moment is not on the way to the tip."""
    state = meta.state.load()

    def scan() -> list[CommitRecord]:
        return [
            decode_commit(entry.payload())
            for entry in chunks.scan_log(state.log_volume_min, state.sequence)
            if entry.kind is NeedleKind.COMMIT
        ]

    return choose_chain(await workers.run(scan), state)


async def _apply(
    meta: Metadata, chain: Sequence[CommitRecord], chunks: ChunkStore, reports: list[str], *, is_same_boot: bool
) -> None:
    for record in chain[:-1]:
        meta.apply(record.changeset)
        meta.commit()
        await trio.lowlevel.checkpoint()
    if not chain:
        return
    last = chain[-1]
    known = meta.stripes.highest_id()
    meta.apply(last.changeset)
    if not is_same_boot:
        for stripe_id in meta.stripes.ids_after(known):
            stripe = meta.stripes.load(stripe_id)
            assert stripe is not None
            if not await chunks.is_readable(stripe):
                meta.rollback()
                reports.append(f"Commit {last.sequence} was not wholly on the drives and was dropped.")
                return
    meta.commit()
    reports.append(f"{len(chain)} commits were applied from the drives' log, up to number {last.sequence}.")

