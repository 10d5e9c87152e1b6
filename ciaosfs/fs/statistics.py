"""What an open store has done so far, in one value: caches, commits, chunks, threads. Read from memory."""

from __future__ import annotations

from dataclasses import dataclass

from ciaosfs.drive.workers import Workers, WorkerStatistics
from ciaosfs.fs.commit import CommitStatistics, Committer
from ciaosfs.fs.listing import Listings
from ciaosfs.fs.reading import Reader
from ciaosfs.stripe.store import ChunkStore, ChunkStoreStatistics

HitsMisses = tuple[int, int]
"""How often something was at hand when it was wanted, and how often it was not."""


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """`pages`: ranges of stripes that came from the page cache of the drives in the loop, or by a thread; `heads`: those of
    needles."""

    pages: HitsMisses = (0, 0)
    heads: HitsMisses = (0, 0)
    stripe_records: HitsMisses = (0, 0)
    listings: HitsMisses = (0, 0)


@dataclass(frozen=True, slots=True)
class FileSystemStatistics:
    """Counts since the store was opened."""

    caches: CacheCounts
    commits: CommitStatistics
    chunks: ChunkStoreStatistics
    workers: WorkerStatistics


def gather(
    chunks: ChunkStore, reader: Reader, listings: Listings, committer: Committer, workers: Workers
) -> FileSystemStatistics:
    """What the parts of one store have counted."""
    counts = chunks.statistics()
    wanted, learnt = counts.reads.reads_nowait + counts.reads.reads, counts.reads.heads_learnt
    return FileSystemStatistics(
        caches=CacheCounts(
            pages=(counts.reads.reads_nowait, counts.reads.reads),
            heads=(max(0, wanted - learnt), learnt),
            stripe_records=(reader.record_hits, reader.record_misses),
            listings=(listings.hits, listings.misses),
        ),
        commits=committer.statistics(),
        chunks=counts,
        workers=workers.statistics(),
    )
