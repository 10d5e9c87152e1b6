"""The drives of one store: that they are there and its own, their space, and a small write, sync and read on each.

What is written for that is a file without a name, so nothing is left behind, whatever happens.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ciaosfs.base import clock, limits
from ciaosfs.base.config import DriveConfig, StoreConfig
from ciaosfs.base.errors import CiaosError
from ciaosfs.base.units import format_bytes
from ciaosfs.doctor.finding import Finding, Level, ok, problem, warning, within
from ciaosfs.drive.making import identity_at
from ciaosfs.drive.syscalls import punch_hole
from ciaosfs.stripe.domains import Site, weakness

FREE_SHARE_GOOD = 0.05
INODES_MIN, INODES_GOOD = 16, 1024
"""A volume takes one and has up to a GiB."""
PROBE_BYTES = 64 * limits.KIB
SYNC_SLOW_S = 1.0
ANSWER_S = limits.DRIVE_DEADLINE_S
_MAKE_ROOM = "Delete files, or add a drive with 'ciaosfs drive add DIR'."


@dataclass(frozen=True, slots=True)
class Probe:
    """How long the parts of a probe took, and what the file system can do."""

    write_s: float
    sync_s: float
    read_s: float
    has_holes: bool
    has_nowait: bool


def check_drives(config: StoreConfig) -> Iterator[Finding]:
    for drive in config.drives:
        yield from check_drive(config, drive)
    yield check_disks(config)


def check_drive(config: StoreConfig, drive: DriveConfig) -> list[Finding]:
    """What is wrong with it; one finding when nothing is."""
    name = f"drive {drive.number}"
    found = []
    try:
        found.append(within(ANSWER_S, _check_identity, name, config, drive))
        if found[0].level is Level.PROBLEM:
            return found
        found.append(within(ANSWER_S, check_space, name, drive.path))
        found.append(judge_probe(name, drive.path, within(ANSWER_S, probe, drive.path)))
    except OSError as error:
        found.append(_failed(name, drive, error))
    wrong = [finding for finding in found if finding.level is not Level.OK]
    return wrong or [ok(name, " ".join(finding.sentence for finding in found))]


def _failed(name: str, drive: DriveConfig, error: OSError) -> Finding:
    if error.errno in (errno.EACCES, errno.EPERM):
        return problem(
            name,
            f"{drive.path} may not be used: {error.strerror}.",
            "Run this as the owner of the store, or as root.",
        )
    if error.errno == errno.ENOSPC:
        return problem(name, f"{drive.path} is full: {error.strerror}.", _MAKE_ROOM)
    words = f"fails: {error.strerror}" if error.strerror else f"does not answer: {error}"
    return problem(
        name,
        f"{drive.path} {words}.",
        f"See 'dmesg' and the disk's SMART values; 'ciaosfs drive replace {drive.number} DIR' empties it.",
    )


def _check_identity(name: str, config: StoreConfig, drive: DriveConfig) -> Finding:
    path, number = drive.path, drive.number
    bring_back = (
        "Mount its disk, or correct its path in ciaosfs.toml; "
        f"'ciaosfs drive replace {number} DIR' when it is lost."
    )
    try:
        identity = identity_at(path)
    except CiaosError as error:
        return problem(name, error.message, bring_back)
    if identity is None:
        return problem(name, f"It is not at {path}.", bring_back)
    if identity.store_id != config.store_id:
        return problem(name, f"{path} is a drive of another store.", bring_back)
    if identity.drive_uuid != drive.uuid or identity.number != number:
        return problem(name, f"{path} is drive {identity.number}, or one that was replaced.", bring_back)
    return ok(name, f"{path}:")


def check_space(name: str, path: Path) -> Finding:
    status = os.statvfs(path)
    free, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    shown = f"{format_bytes(free)} of {format_bytes(total)} are free"
    if free < limits.LOG_RESERVE_BYTES:
        return problem(name, f"It is full: {shown}.", _MAKE_ROOM)
    if free < FREE_SHARE_GOOD * total:
        return warning(name, f"It is nearly full: {shown}.", _MAKE_ROOM)
    inodes = status.f_favail
    if status.f_files and inodes < INODES_GOOD:
        found = problem if inodes < INODES_MIN else warning
        return found(name, f"Only {inodes} inodes are free.", "Remove small files of others from that disk.")
    return ok(name, f"{shown};")


def probe(path: Path) -> Probe:
    """Write, sync, read back. Blocking. Raises OSError for what the disk refuses, and when it gives back something else."""
    content = os.urandom(PROBE_BYTES)
    descriptor = os.open(path, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        moments = [clock.monotonic_s()]
        os.pwrite(descriptor, content, 0)
        moments.append(clock.monotonic_s())
        os.fsync(descriptor)
        moments.append(clock.monotonic_s())
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if os.pread(descriptor, PROBE_BYTES, 0) != content:
            raise OSError(errno.EIO, "it gives back other bytes than were written")
        moments.append(clock.monotonic_s())
        write_s, sync_s, read_s = (after - before for before, after in pairwise(moments))
        return Probe(write_s, sync_s, read_s, _has_holes(descriptor), _has_nowait(descriptor))
    finally:
        os.close(descriptor)


def _has_nowait(descriptor: int) -> bool:
    try:
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def _has_holes(descriptor: int) -> bool:
    before = os.fstat(descriptor).st_blocks
    punch_hole(descriptor, 0, PROBE_BYTES)
    return os.fstat(descriptor).st_blocks < before


def judge_probe(name: str, path: Path, found: Probe) -> Finding:
    shown = (
        f"writing 64 KiB took {found.write_s * 1000:.1f} ms, syncing {found.sync_s * 1000:.1f} ms, "
        f"reading {found.read_s * 1000:.1f} ms"
    )
    if found.sync_s > SYNC_SLOW_S:
        return warning(
            name,
            f"It is slow: {shown}.",
            "See what else uses that disk, and its SMART values: each fsync waits for it.",
        )
    if not found.has_holes:
        return warning(
            name,
            f"The file system at {path} has no holes: space comes back late, by copying.",
            "Use ext4, XFS, btrfs or ZFS for drives.",
        )
    if not found.has_nowait:
        return warning(
            name,
            f"The file system at {path} does not tell what is in memory (RWF_NOWAIT): small reads take longer.",
            "Use ext4, XFS or btrfs for drives.",
        )
    return ok(name, f"{shown}.")


def check_disks(config: StoreConfig) -> Finding:
    """Whether losing one disk loses more than parity replaces, as far as the drives are there."""
    name = "disks"
    sites = []
    for drive in config.drives:
        try:
            sites.append(Site(drive.number, drive.labels, within(ANSWER_S, drive.path.stat).st_dev))
        except OSError:
            continue  # said by the check of that drive
    sentence = weakness(sites, config.data_count, config.parity_count)
    if sentence is not None:
        return warning(
            name,
            sentence,
            "Put drives on disks of their own ('ciaosfs drive replace N DIR'), or label those that are, in ciaosfs.toml.",
        )
    return ok(name, f"Any {config.parity_count} of the drives may be lost, and no disk holds more than that.")
