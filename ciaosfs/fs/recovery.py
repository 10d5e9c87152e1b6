"""From whatever a crash left to one consistent moment: the newest commit whose data is on the drives.

The drives hold the truth, SQLite is its index. Cases, each with a test of its name in tests/crash:

- *clean or killed*: the database's last commit is the tip of the log; nothing to do.
- *database behind* (power cut lost the tail of its WAL, or the process died between needle and SQLite commit):
  the changesets after it are applied in order.
- *database ahead* (its WAL survived a power cut that the needle did not): its newest commit is cut off. What a
  checkpoint has copied never runs ahead of what is synced; then as above.
- *database gone or damaged*, or older than what the log still holds: the newest image of the metadata that can be read
  (`restoring`) and the changesets after it; without an image a fresh one and all changesets from the beginning.

The last commit may be in doubt, because only its sync was the promise. It counts if every stripe it brings and uses
can be read, and is dropped otherwise: nobody was told that it was durable. The same goes for stripes of which it moved
shards: the former places are given up with the commit. It is doubted also where the database has
it already: the kernel may have written SQLite's log back and not the file data. When it was the first of its mount, it may
have been made to heal what was torn of the one before; then nobody was told of that one either, and it is in doubt as well.

What was dropped must stay so, or people would see the tree go back and forth: the opening that dropped a commit makes
one of its own at once, with an epoch above all that were found.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from ciaosfs.base.errors import CiaosError, DamagedError, DriveGoneError, LogDamagedError
from ciaosfs.base.types import StripeRecord
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.restoring import Survey, restore, survey_log
from ciaosfs.meta.commitlog import CommitRecord, choose_chain, decode_commit
from ciaosfs.meta.contents import shards_moved, stripes_brought, stripes_given_up
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.state import State
from ciaosfs.stripe.store import ChunkStore, DriveState

log = logging.getLogger(__name__)

APPLY_CHECKPOINT_COMMITS = 256
"""Commits applied between two looks at the size of SQLite's write-ahead log."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """An open database at the chosen moment, and sentences about what had to be done, for the log and `status`.

    `epoch` and `stripe_id` are the highest found in the log, also in commits that do not count: they must not be
    used again. `must_supersede`: a commit that does not count is on the drives, or may be on a drive that is away.
    `to_copy` is the newest commit when fewer drives have it than should: the crash came while its needles were written.
    Whatever is built upon it would be lost with them, so it is to be written again and synced first.
    `torn_stripes`: can be read, but with less parity than was promised: to be written anew before anything is.
    """

    meta: Metadata
    reports: tuple[str, ...]
    epoch: int
    stripe_id: int
    must_supersede: bool
    torn_stripes: list[int]
    to_copy: CommitRecord | None


@dataclass(frozen=True, slots=True)
class _Log:
    """What the drives' log says from some moment on: all records found with the drives that have a whole copy, and
    those records that lead to the tip."""

    records: dict[CommitRecord, set[int]]
    chain: list[CommitRecord]


async def recover(
    database: Path, store_id: bytes, chunks: ChunkStore, workers: Workers, *, is_same_boot: bool
) -> Recovered:
    """Open the database and bring it to the tip of the log.

    LogDamagedError when no whole chain of commits is left, DriveGoneError when one may be on drives that are away.

    `is_same_boot` says that the machine has not gone down since the store was last written: then what was
    written can be read, synced or not, and the stripes of the last commit need no reading.
    """
    reports: list[str] = []
    meta, found, went_back = await _open_on_chain(database, store_id, chunks, workers, reports)
    try:
        await _apply(meta, found.chain[:-1], workers)
        newest = tip = _newest(meta, found)
        if found.chain:
            meta.apply(found.chain[-1].changeset)
        dropped: list[CommitRecord] = []
        doubtful: set[int] | None = None
        while tip is not None and not is_same_boot and not await _is_whole(meta, chunks, tip, doubtful):
            meta, is_gone = _drop(meta, database, store_id, is_applied=bool(found.chain) and not dropped)
            if not is_gone:
                break
            dropped.append(tip)
            tip = await _commit_of(meta, chunks, workers)
            if tip is None or tip.epoch == dropped[-1].epoch:
                break  # it was synced before the one that was dropped was begun
            doubtful = stripes_given_up(dropped[-1].changeset)  # the others were whole when that one was made
        if found.chain and not dropped:
            meta.commit()
            reports.append(
                f"{len(found.chain)} commits were applied from the drives' log, up to number "
                f"{found.chain[-1].sequence}."
            )
        reports += (
            f"Commit {record.sequence} was not wholly on the drives and was dropped." for record in dropped
        )
        torn = [] if tip is None or is_same_boot else await _torn(meta, chunks, tip)
    except BaseException:
        meta.close()
        raise
    for report in reports:
        log.warning("%s", report)
    return Recovered(
        meta,
        tuple(reports),
        epoch=max((record.epoch for record in found.records), default=0),
        stripe_id=0 if newest is None else max(stripes_brought(newest.changeset), default=0),
        must_supersede=went_back or bool(dropped) or bool(_absent(chunks)),
        torn_stripes=torn,
        to_copy=None if newest is None or dropped or _has_copies(chunks, found.records[newest]) else newest,
    )


async def _open_on_chain(
    database: Path, store_id: bytes, chunks: ChunkStore, workers: Workers, reports: list[str]
) -> tuple[Metadata, _Log, bool]:
    """The database at a moment from which the log leads to its tip, what the log says, and whether it went back."""
    went_back = False
    survey: Survey | None = None
    meta = _open_existing(database, reports)
    while meta is not None:
        state = meta.state.load()
        found = await _read_log(state, chunks, workers)
        if found is not None:
            return meta, found, went_back
        meta.close()
        survey = survey or await survey_log(store_id, chunks, workers)
        if _is_before(state, survey):
            reports.append(f"The database is at commit {state.sequence}, before what the log still holds.")
            break
        # Ahead of the drives, or on a branch that was given up: go back commit by commit. A power cut puts it one
        # step ahead at most, since a commit begins only when the one before it is synced. What is further ahead, or
        # copied by a checkpoint, was synced: on drives that are away, if any are.
        meta = None if went_back and _absent(chunks) else _open_existing(database, reports, drop_newest=True)
        is_dropped = meta is not None or not _can_open(database)  # nothing is left without the first commit
        if _absent(chunks) and not is_dropped:
            raise DriveGoneError(
                f"The database is at commit {state.sequence}, of which the drives that are there know nothing: "
                f"connect drive {', '.join(map(str, sorted(_absent(chunks))))} and mount again."
            )
        if is_dropped:
            reports.append(f"Commit {state.sequence} of the database was not on the drives and was dropped.")
            went_back = True
    survey = survey or await survey_log(store_id, chunks, workers)
    begun = await _begin_from_image(survey, database, chunks, workers, reports)
    if begun is not None:
        return *begun, went_back
    # Looked at before anything is replaced: a database that is ahead of a log with gaps is better than none.
    found = await _read_log(State.first(store_id), chunks, workers)
    if found is None:
        raise LogDamagedError(
            "The drives hold commits, but not all of them from the beginning: "
            "connect the missing drives and mount again."
        )
    if found.chain:
        reports.append(
            f"The database was gone or damaged and is rebuilt from the drives: {len(found.chain)} commits."
        )
    return Metadata.create_fresh(database, store_id), found, went_back


def _is_before(state: State, survey: Survey) -> bool:
    """Whether the database is so old that the log after it is gone, and an image takes its place."""
    if survey.tip is None or not survey.roots:
        return False
    tip, newest = survey.tip, survey.roots[0].state
    return newest.sequence > state.sequence and (tip.epoch, tip.sequence) > (state.epoch, state.sequence)


async def _begin_from_image(
    survey: Survey, database: Path, chunks: ChunkStore, workers: Workers, reports: list[str]
) -> tuple[Metadata, _Log] | None:
    """The database as of the newest image that can be read, and the log after it; None when there is no image.

    When none can be read, and without them the log has no beginning: DriveGoneError or LogDamagedError.
    """
    failure: CiaosError | None = None
    for root in survey.roots:
        found = await _read_log(root.state, chunks, workers)
        if found is None:
            continue
        try:
            await restore(root, found.chain, database, chunks, workers)
        except (DamagedError, DriveGoneError) as error:
            reports.append(
                f"The image of the metadata as of commit {root.state.sequence} cannot be read: {error}"
            )
            failure = error
            continue
        reports.append(
            f"The database is rebuilt from the image of commit {root.state.sequence} on the drives, "
            f"{root.inodes} inodes, and {len(found.chain)} commits after it."
        )
        return Metadata.open(database), found
    if failure is not None and await _read_log(State.first(b""), chunks, workers) is None:
        raise failure
    return None


def _open_existing(database: Path, reports: list[str], *, drop_newest: bool = False) -> Metadata | None:
    if not database.exists():
        return None
    try:
        return Metadata.open(database, drop_wal=drop_newest)
    except LogDamagedError as error:
        reports.append(f"The database is damaged ({error}).")
        return None


def _can_open(database: Path) -> bool:
    meta = _open_existing(database, [])
    if meta is not None:
        meta.close()
    return meta is not None


async def _read_log(state: State, chunks: ChunkStore, workers: Workers) -> _Log | None:
    """The commits from a moment on, its own included; None when it is not on the way to the tip."""
    records = await _scan(state, chunks, workers)
    chain = choose_chain(records, state)
    return None if chain is None else _Log(records, chain)


async def _scan(state: State, chunks: ChunkStore, workers: Workers) -> dict[CommitRecord, set[int]]:
    """Every commit from a moment on, its own included, and the drives that have it."""

    def scan() -> dict[CommitRecord, set[int]]:
        found: dict[CommitRecord, set[int]] = {}
        for entry in chunks.scan_log(state.log_volume_min, state.sequence):
            if entry.kind is NeedleKind.COMMIT:
                found.setdefault(decode_commit(entry.payload()), set()).add(entry.drive_number)
        return found

    return await workers.run(scan)


async def _commit_of(meta: Metadata, chunks: ChunkStore, workers: Workers) -> CommitRecord | None:
    """The commit that `meta` is at; None in a new store."""
    state = meta.state.load()
    records = await _scan(state, chunks, workers)
    return next((record for record in records if record.commit_id == state.commit_id), None)


async def _apply(meta: Metadata, chain: Sequence[CommitRecord], workers: Workers) -> None:
    for number, record in enumerate(chain, 1):
        meta.apply(record.changeset)
        meta.commit()
        await trio.lowlevel.checkpoint()
        # What is applied is synced on the drives: they were, when opened. But for the last, which may yet be dropped.
        if number % APPLY_CHECKPOINT_COMMITS == 0 and number < len(chain):
            await meta.checkpoint_if_due(workers.run)


def _newest(meta: Metadata, found: _Log) -> CommitRecord | None:
    """The newest commit: the end of the chain, or the one the database is at; None in a new store."""
    if found.chain:
        return found.chain[-1]
    commit_id = meta.state.load().commit_id
    return next((record for record in found.records if record.commit_id == commit_id), None)


async def _is_whole(
    meta: Metadata, chunks: ChunkStore, newest: CommitRecord, doubtful: Collection[int] | None
) -> bool:
    """Whether every stripe that the commit brought or moved, and uses, can be read; `meta` is at that commit.

    Of all these or, if not None, of the doubtful ones.
    DriveGoneError when drives are away without which a synced commit could look like a torn one.
    """
    absent = _absent(chunks)
    for stripe, indexes in _in_doubt(meta, newest):
        if doubtful is not None and stripe.stripe_id not in doubtful:
            continue
        if not await _has_torn(chunks, stripe, indexes) or await chunks.is_readable(stripe):
            continue
        away = sum(
            1
            for place in stripe.places
            if (volume := meta.volumes.load(place.volume_id)) is not None and volume.drive in absent
        )
        if away and stripe.missing_count + away > stripe.parity_count:
            raise DriveGoneError(
                f"Commit {newest.sequence} was written while drives were away, and now others are "
                f"({', '.join(map(str, sorted(absent)))}): connect them and mount again."
            )
        return False
    return True


async def _torn(meta: Metadata, chunks: ChunkStore, newest: CommitRecord) -> list[int]:
    """Stripes of the newest commit that can be read but lack whole shards: a power cut came before all were written."""
    return [
        stripe.stripe_id
        for stripe, indexes in _in_doubt(meta, newest)
        if await chunks.damaged_shards(_only(stripe, indexes))
    ]


def _in_doubt(meta: Metadata, newest: CommitRecord) -> Iterator[tuple[StripeRecord, Collection[int] | None]]:
    """The stripes that the newest commit uses and of which it placed shards: all, or those of these indexes.

    A stripe that was dead already when the cut was made is left out: its space is given back as soon as the commit
    is synced.
    """
    written: dict[int, Collection[int] | None] = dict.fromkeys(stripes_brought(newest.changeset))
    for stripe_id, indexes in (written | shards_moved(newest.changeset)).items():
        stripe = meta.stripes.load(stripe_id)
        if stripe is not None and meta.stripes.live_bytes(stripe_id):
            yield stripe, indexes


async def _has_torn(chunks: ChunkStore, stripe: StripeRecord, indexes: Collection[int] | None) -> bool:
    """Whether it may be the commit's fault that a stripe cannot be read: one that was lost before is not."""
    return indexes is None or bool(await chunks.damaged_shards(_only(stripe, indexes)))


def _only(stripe: StripeRecord, indexes: Collection[int] | None) -> StripeRecord:
    """The stripe with the places of these shards alone; None: of all."""
    if indexes is None:
        return stripe
    return replace(stripe, places=tuple(place for place in stripe.places if place.shard_index in indexes))


def _has_copies(chunks: ChunkStore, drives: set[int]) -> bool:
    """Whether a commit lies on as many drives as it should, or on all that are there."""
    there = sum(drive.state is not DriveState.ABSENT for drive in chunks.drive_statuses())
    return len(drives) >= min(chunks.commit_copies, there)


def _absent(chunks: ChunkStore) -> set[int]:
    return {drive.number for drive in chunks.drive_statuses() if drive.state is DriveState.ABSENT}


def _drop(meta: Metadata, database: Path, store_id: bytes, *, is_applied: bool) -> tuple[Metadata, bool]:
    """The database at the commit before the newest, and True; or as it is, and False.

    `is_applied`: the newest is in the open transaction only. Else the database has it, and goes back, unless a
    checkpoint has copied it: then it was synced, what cannot be read of it was lost later, and it stays.
    """
    if is_applied:
        meta.rollback()
        return meta, True
    sequence = meta.state.load().sequence
    meta.close()
    while True:
        try:
            meta = Metadata.open(database, drop_wal=True)
        except LogDamagedError:
            break
        if meta.state.load().sequence < sequence:
            return meta, True
        meta.close()  # SQLite's log ended with a commit that was torn and did not count
    try:
        return Metadata.open(database), False
    except LogDamagedError:  # it was the first commit there ever was
        return Metadata.create_fresh(database, store_id), True
