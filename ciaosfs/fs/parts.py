"""What the floors above the file system build upon: jobs, drive administration."""

from __future__ import annotations

from dataclasses import dataclass

from ciaosfs.drive.workers import Workers
from ciaosfs.fs.collect import Collector
from ciaosfs.fs.commit import Committer
from ciaosfs.fs.compact import Compactor
from ciaosfs.fs.defragment import Defragmenter
from ciaosfs.fs.gate import Gate
from ciaosfs.fs.image import Imager
from ciaosfs.fs.mending import Mender
from ciaosfs.fs.reclaim import Reclaimer
from ciaosfs.meta.metadata import Metadata
from ciaosfs.stripe.store import ChunkStore


@dataclass(frozen=True, slots=True)
class Parts:
    """The insides of one open store. The rule for every change: wait at the gate, then no await until it is whole."""

    meta: Metadata
    chunks: ChunkStore
    gate: Gate
    committer: Committer
    reclaimer: Reclaimer
    compactor: Compactor
    defragmenter: Defragmenter
    mender: Mender
    imager: Imager
    collector: Collector
    workers: Workers
