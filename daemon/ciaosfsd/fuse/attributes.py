"""From an inode to what the kernel is told about it, and back from a setattr request.

The daemon is the only writer, so the kernel may keep every answer for a day: not being asked is faster than any
answer. Whoever changes the tree on another way than this mount must invalidate what the kernel keeps. Where tokens
guard, an answer is for who asked alone (`uncached`).
"""

from __future__ import annotations

import pyfuse3

from ciaosfs.fs.attributes import SetAttributes
from ciaosfs.meta.dentries import ListedRow
from ciaosfs.meta.inodes import Inode

CACHE_S = 86400.0
UNCACHED_S = 0.0
BLOCK_BYTES = 4096
"""st_blksize, f_bsize and f_frsize: what a page of the kernel's cache holds."""
_SECTOR_BYTES = 512
"""The unit of st_blocks, whatever st_blksize says."""


def entry_attributes(inode: Inode, pending_bytes: int = 0) -> pyfuse3.EntryAttributes:
    """The answer to lookup and getattr. `pending_bytes` are in memory still and count as allocated.

    What lies beyond the end of a file that was just cut short does not: the kernel keeps this answer.
    """
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = inode.ino
    entry.entry_timeout = CACHE_S
    entry.attr_timeout = CACHE_S
    entry.st_mode = inode.mode
    entry.st_nlink = inode.nlink
    entry.st_uid = inode.uid
    entry.st_gid = inode.gid
    entry.st_rdev = inode.rdev
    entry.st_size = inode.size
    entry.st_blocks = (min(inode.allocated, inode.size) + pending_bytes + _SECTOR_BYTES - 1) // _SECTOR_BYTES
    entry.st_atime_ns = inode.atime_ns
    entry.st_mtime_ns = inode.mtime_ns
    entry.st_ctime_ns = inode.ctime_ns
    return entry


class ListingEntry:
    """One entry that is filled again for each name of a listing: pyfuse3 copies it into the reply at once.

    What neighbours mostly share (mode, owner, links) is set only when it differs from the entry before: setting a field
    costs as much as reading a column.
    """

    def __init__(self, cache_s: float = CACHE_S) -> None:
        """`cache_s`: how long the kernel may keep what it is told."""
        self._entry = entry = pyfuse3.EntryAttributes()
        entry.entry_timeout = cache_s
        entry.attr_timeout = cache_s
        self._shared = (-1, 0, 0, 0, 0)

    def fill(self, row: ListedRow, pending_bytes: int = 0) -> pyfuse3.EntryAttributes:
        """The attributes of the entry in `row`; valid until the next call."""
        _, _, ino, mode, nlink, uid, gid, rdev, size, atime_ns, mtime_ns, ctime_ns, allocated = row
        entry = self._entry
        shared = (mode, nlink, uid, gid, rdev)
        if shared != self._shared:
            self._shared = shared
            entry.st_mode, entry.st_nlink, entry.st_uid, entry.st_gid, entry.st_rdev = shared
        entry.st_ino = ino
        entry.st_size = size
        if allocated > size:
            allocated = size
        entry.st_blocks = (allocated + pending_bytes + _SECTOR_BYTES - 1) // _SECTOR_BYTES
        entry.st_atime_ns = atime_ns
        entry.st_mtime_ns = mtime_ns
        entry.st_ctime_ns = ctime_ns
        return entry


def uncached(entry: pyfuse3.EntryAttributes) -> pyfuse3.EntryAttributes:
    """The same answer, for who asks alone: the kernel asks again for the next one."""
    entry.entry_timeout = UNCACHED_S
    entry.attr_timeout = UNCACHED_S
    return entry


def _no_entry() -> pyfuse3.EntryAttributes:
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = CACHE_S
    return entry


NO_ENTRY = _no_entry()
"""Answers the lookup of a name that is not there, so that the kernel remembers that too. Never changed."""


def wanted_changes(attributes: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> SetAttributes:
    """What a setattr request asks for."""
    return SetAttributes(
        attributes.st_mode if fields.update_mode else None,
        attributes.st_uid if fields.update_uid else None,
        attributes.st_gid if fields.update_gid else None,
        attributes.st_size if fields.update_size else None,
        attributes.st_atime_ns if fields.update_atime else None,
        attributes.st_mtime_ns if fields.update_mtime else None,
        attributes.st_ctime_ns if fields.update_ctime else None,
    )
