"""Where the commits of a store that is not open lie on its drives, for tests that harm them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ciaosfs.base.types import VolumeKind
from ciaosfs.codec.needle import NeedleKind
from ciaosfs.codec.superblock import decode_superblock
from ciaosfs.drive.localfile import LocalFile
from ciaosfs.volume.scan import scan_needles
from tests.support.builders import Store


class Copy(NamedTuple):
    """One copy of a commit: `length` bytes, head included, at `offset` in the volume file `path`."""

    drive: int
    path: Path
    sequence: int
    offset: int
    length: int


def log_volumes(store: Store, drive: int) -> Iterator[Path]:
    """The log volumes of a drive, oldest first."""
    for path in store.volumes(drive):
        content = path.read_bytes()[:4096]
        if len(content) == 4096 and decode_superblock(content).kind is VolumeKind.LOG:
            yield path


def commit_copies(store: Store) -> list[Copy]:
    """Every copy of every commit on the drives that are there."""
    copies = []
    hidden = set(store.hidden())
    for drive in store.config.drives:
        if drive.number in hidden:
            continue
        for path in log_volumes(store, drive.number):
            file = LocalFile(os.open(path, os.O_RDONLY))
            try:
                copies += [
                    Copy(drive.number, path, head.stripe_id, head.offset, head.needle_bytes)
                    for head in scan_needles(file, store.config.store_id, int(path.stem, 16))
                    if head.kind is NeedleKind.COMMIT
                ]
            finally:
                file.close()
    return copies


def last_commit(store: Store) -> list[Copy]:
    """The copies of the commit with the highest sequence number."""
    copies = commit_copies(store)
    highest = max(copy.sequence for copy in copies)
    return [copy for copy in copies if copy.sequence == highest]
