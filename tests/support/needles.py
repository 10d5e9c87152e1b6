"""Where the commits of a store that is not open lie on its drives, for tests that harm them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ciaosfs.base.types import StripeKind, VolumeKind
from ciaosfs.codec.needle import NeedleHead, NeedleKind
from ciaosfs.codec.superblock import decode_superblock
from ciaosfs.drive.localfile import LocalFile
from ciaosfs.volume.scan import scan_needles
from tests.support.builders import Store


class Copy(NamedTuple):
    """One copy of a commit, or another needle: `length` bytes, head included, at `offset` in the volume file `path`."""

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
    return needle_copies(store, NeedleKind.COMMIT)


def needle_copies(store: Store, kind: NeedleKind) -> list[Copy]:
    """Every needle of one kind in the log volumes of the drives that are there."""
    return [
        found
        for drive in _there(store)
        for path in log_volumes(store, drive)
        for found, head in _needles(store, drive, path)
        if head.kind is kind
    ]


def image_stripes(store: Store) -> list[Copy]:
    """Every shard of a stripe of an image, in all volumes; `sequence` is the stripe's id."""
    return [
        found
        for drive in _there(store)
        for path in store.volumes(drive)
        for found, head in _needles(store, drive, path)
        if head.stripe_kind is StripeKind.IMAGE
    ]


def _there(store: Store) -> list[int]:
    hidden = set(store.hidden())
    return [drive.number for drive in store.config.drives if drive.number not in hidden]


def _needles(store: Store, drive: int, path: Path) -> Iterator[tuple[Copy, NeedleHead]]:
    file = LocalFile(os.open(path, os.O_RDONLY))
    try:
        for head in scan_needles(file, store.config.store_id, int(path.stem, 16)):
            yield Copy(drive, path, head.stripe_id, head.offset, head.needle_bytes), head
    finally:
        file.close()


def last_commit(store: Store) -> list[Copy]:
    """The copies of the commit with the highest sequence number."""
    copies = commit_copies(store)
    highest = max(copy.sequence for copy in copies)
    return [copy for copy in copies if copy.sequence == highest]
