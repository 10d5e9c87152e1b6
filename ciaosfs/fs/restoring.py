"""Beginning from an image of the metadata: which ones the drives have, and the database out of one.

An image is believed when its root is whole and the commit it is of leads to the tip of the log. Its stripes are looked
for where the root says; if so many shards have moved since that they cannot be read there, where the commits after the
image put them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from ciaosfs.base.errors import CiaosError, DamagedError, DriveGoneError, LogDamagedError
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.drive.workers import Workers
from ciaosfs.meta.commitlog import CommitRecord, choose_chain, decode_commit, newest
from ciaosfs.meta.contents import follow_shards
from ciaosfs.meta.imagefile import RestoredDatabase
from ciaosfs.meta.imageformat import ImageRoot, decode_root
from ciaosfs.stripe.store import ChunkStore

log = logging.getLogger(__name__)

STRIPES_AT_ONCE = 4
"""Stripes read, unpacked and written beside each other."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the whole log holds: the images to begin from, newest first, and its tip, None when there is no commit."""

    roots: tuple[ImageRoot, ...]
    tip: CommitRecord | None


async def survey_log(store_id: bytes, chunks: ChunkStore, workers: Workers) -> Survey:
    """Look through all log volumes. The tip, and what decides about the images, come without their changesets."""

    def scan() -> Survey:
        records: dict[int, CommitRecord] = {}
        roots: dict[int, ImageRoot] = {}
        for entry in chunks.scan_log(0):
            try:
                if entry.kind is NeedleKind.COMMIT:
                    record = decode_commit(entry.payload())
                    records[record.commit_id] = replace(record, stored=b"", packed_from=0)
                else:
                    root = decode_root(entry.payload())
                    if root.state.store_id == store_id:
                        # Written again when a drive failed, it may name other places; either will do.
                        roots[root.state.commit_id] = root
            except LogDamagedError as error:
                log.warning("drive %d: %s", entry.drive_number, error)
        ordered = sorted(roots.values(), key=lambda root: root.state.sequence, reverse=True)
        leading = [root for root in ordered if choose_chain(records.values(), root.state) is not None]
        return Survey(tuple(leading), newest(records.values()))

    return await workers.run(scan)


async def restore(
    root: ImageRoot, chain: Sequence[CommitRecord], database: Path, chunks: ChunkStore, workers: Workers
) -> None:
    """Put the database of an image in the place of `database`. `chain` are the commits after it.

    DamagedError when the image cannot be read any more, DriveGoneError when drives are away that it needs; then what is
    at `database` is as it was.
    """
    try:
        await _restore(root, database, chunks, workers)
    except (DamagedError, DriveGoneError) as error:
        log.warning("the image of commit %d is not where its root says: %s", root.state.sequence, error)
        changesets = (record.changeset for record in chain)
        moved = root.at(await workers.run(follow_shards, changesets, root.places()))
        if moved == root:
            raise
        await _restore(moved, database, chunks, workers)


async def _restore(root: ImageRoot, database: Path, chunks: ChunkStore, workers: Workers) -> None:
    restored = await workers.run(RestoredDatabase, database, root)
    try:
        waiting = iter(root.stripes)
        failure: CiaosError | None = None

        async def fetch(scope: trio.CancelScope) -> None:
            nonlocal failure
            for stripe in waiting:
                try:
                    payload = await chunks.read(stripe.record, 0, stripe.record.payload_bytes)
                    await workers.run(restored.put, stripe, payload)
                except CiaosError as error:
                    failure = error
                    scope.cancel()

        async with trio.open_nursery() as nursery:
            for _ in range(STRIPES_AT_ONCE):
                nursery.start_soon(fetch, nursery.cancel_scope)
        if failure is not None:
            raise failure
        await workers.run(restored.install)
    finally:
        with trio.CancelScope(shield=True):
            await workers.run(restored.close)
