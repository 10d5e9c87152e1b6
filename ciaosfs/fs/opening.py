"""Bring a store to life: drives, recovery, background tasks; and put it to rest with everything on the drives."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from ciaosfs.base.clock import IdSource
from ciaosfs.base.config import StoreConfig
from ciaosfs.base.errors import StoreError
from ciaosfs.drive.local import open_drive
from ciaosfs.drive.workers import Workers
from ciaosfs.fs import housekeeping
from ciaosfs.fs.boot import boot_path, database_path, is_same_boot, note_boot
from ciaosfs.fs.collect import Collector
from ciaosfs.fs.commit import Committer
from ciaosfs.fs.compact import Compactor
from ciaosfs.fs.defragment import Defragmenter
from ciaosfs.fs.drivesync import sync_drives
from ciaosfs.fs.files import Files
from ciaosfs.fs.filesystem import FileSystem
from ciaosfs.fs.flush import Flusher
from ciaosfs.fs.gate import Gate
from ciaosfs.fs.image import Imager
from ciaosfs.fs.mending import Mender
from ciaosfs.fs.merge import Merger
from ciaosfs.fs.pack import Packer
from ciaosfs.fs.parts import Parts
from ciaosfs.fs.reading import Reader
from ciaosfs.fs.reclaim import Reclaimer
from ciaosfs.fs.recovery import recover
from ciaosfs.fs.room import RoomMaker
from ciaosfs.fs.slicing import Slicer
from ciaosfs.meta import reports
from ciaosfs.meta.metadata import Metadata
from ciaosfs.stripe.arriving import open_drives
from ciaosfs.stripe.layout import place_of
from ciaosfs.stripe.store import ChunkStore, DriveSet
from ciaosfs.volume.driveset import DriveOpener

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_store(
    config: StoreConfig, workers: Workers, *, opener: DriveOpener = open_drive
) -> AsyncIterator[FileSystem]:
    """Open the store in `config`, which the caller has locked, and yield its running file system.

    `opener` opens one drive; another one is for tests of drives that fail and of power cuts.
    On leaving, everything is committed and synced; what kept it from being so is raised (CiaosError).
    """
    drives = await open_drives(config, workers, opener)
    ids = IdSource(_highest_volume(drives))
    async with ChunkStore(
        drives, config.store_id, config.data_count, config.parity_count, ids, workers
    ) as chunks:
        boot, database = boot_path(config.path), database_path(config.path)
        await workers.run(_make_directory, database.parent)
        recovered = await recover(database, config.store_id, chunks, workers, is_same_boot=is_same_boot(boot))
        meta = recovered.meta
        ids.raise_above(max(meta.stripes.highest_id(), meta.volumes.highest_id(), recovered.stripe_id))
        try:
            files = Files()
            gate = Gate()
            reclaimer = Reclaimer(meta, chunks, files, gate)
            async with trio.open_nursery() as nursery:
                flusher = Flusher(meta, chunks, files, workers, nursery)
                committer = Committer(
                    meta,
                    chunks,
                    files,
                    flusher,
                    reclaimer,
                    gate,
                    workers,
                    config.commit_interval_s,
                    recovered.epoch,
                )
                chunks.on_volume = committer.note_volume
                meta.stripes.on_inserted = chunks.noted
                meta.stripes.on_placed = chunks.landed
                imager = Imager(meta, chunks, committer, gate, workers)
                chunks.respect(partial(_known_end, meta))
                collector = Collector(meta, chunks, committer, reclaimer, imager, gate, workers)
                reader = Reader(meta, chunks, reclaimer, workers, nursery)
                merger = Merger(meta, chunks, reclaimer, gate, workers)
                compactor = Compactor(meta, chunks, merger, workers)
                defragmenter = Defragmenter(meta, chunks, merger, workers)
                slicer = Slicer(meta, reclaimer, committer, gate)
                filesystem = FileSystem(
                    meta,
                    chunks,
                    files,
                    gate,
                    flusher,
                    reader,
                    reclaimer,
                    committer,
                    RoomMaker(chunks, files, committer, compactor, reclaimer, slicer),
                    slicer,
                    workers,
                    Parts(
                        meta,
                        chunks,
                        gate,
                        committer,
                        reclaimer,
                        compactor,
                        defragmenter,
                        Mender(meta, chunks, reclaimer, gate),
                        imager,
                        collector,
                        workers,
                    ),
                    recovered.reports,
                    compress=config.compression != "none",
                )
                sync_drives(config, meta, chunks)
                if recovered.to_copy is not None:
                    await committer.copy_again(recovered.to_copy)
                filesystem.prepare()
                if recovered.torn_stripes:
                    await _heal(recovered.torn_stripes, compactor, committer, filesystem.parts)
                if not recovered.must_supersede or await committer.supersede():
                    await workers.run(note_boot, boot)
                nursery.start_soon(housekeeping.watch_drives, chunks)
                nursery.start_soon(slicer.run)
                nursery.start_soon(reclaimer.discard)
                nursery.start_soon(housekeeping.work_off, "compaction", compactor.step)
                nursery.start_soon(housekeeping.work_off, "defragmenting", defragmenter.step)
                nursery.start_soon(housekeeping.work_off, "packing", Packer(meta, merger, workers).step)
                nursery.start_soon(committer.run)
                nursery.start_soon(imager.run)
                nursery.start_soon(collector.run)
                try:
                    yield filesystem
                finally:
                    with trio.CancelScope(shield=True):
                        await imager.close()
                        try:
                            await committer.close()
                        finally:
                            nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await workers.run(meta.close)


def _known_end(meta: Metadata, volume_id: int) -> int:
    with meta.reader() as reader:
        return reports.end_in_volume(reader, volume_id)


async def _heal(stripe_ids: list[int], compactor: Compactor, committer: Committer, parts: Parts) -> None:
    """Write torn stripes anew: the next fsync promises that they survive the loss of any m drives.

    Where there is no room for that, what is torn counts as missing from now on, and is repaired as soon as there is.
    """
    healed = [await compactor.rewrite(stripe_id) for stripe_id in stripe_ids]
    for stripe_id, is_healed in zip(stripe_ids, healed, strict=True):
        record = parts.meta.stripes.load(stripe_id)
        if is_healed or record is None:
            continue
        damaged = await parts.chunks.damaged_shards(record)
        kept = tuple(place for place in record.places if place.shard_index not in damaged)
        if not await parts.chunks.is_readable(replace(record, places=kept)):
            continue  # some blocks are only left in torn shards
        for shard_index in damaged:
            place = place_of(record, shard_index)
            if place is not None and parts.meta.stripes.forget_shard(stripe_id, place):
                parts.reclaimer.replaced(record, [place])
    await committer.commit()
    log.warning("%d of %d stripes torn by a power cut were written anew", sum(healed), len(healed))


def _highest_volume(drives: DriveSet) -> int:
    """The highest id among the volume files: the metadata learns of volumes late, and the clock may be set back."""
    names = (name for names in drives.names_at_open.values() for name in names)
    return max((int(name.split(".")[0], 16) for name in names), default=0)


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        why = "it is not a directory" if isinstance(error, FileExistsError) else error.strerror
        raise StoreError(
            f"{path} cannot hold the metadata: {why}; with that mended, 'ciaosfs mount' rebuilds what is missing."
        ) from error
