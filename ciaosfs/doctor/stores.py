"""One store, without its daemon: who may touch it, how its last mount ended, its clock, its log, where its metadata lies."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from ciaosfs.base import limits
from ciaosfs.base.config import CONFIG_NAME, StoreConfig
from ciaosfs.base.errors import CiaosError
from ciaosfs.base.log import LOG_NAME
from ciaosfs.base.units import format_bytes, format_duration
from ciaosfs.client import mounts, storelock
from ciaosfs.doctor.finding import Finding, attempt, ok, problem, warning
from ciaosfs.fs.boot import database_path
from ciaosfs.meta.reader import Reader
from ciaosfs.meta.state import read_state

CLOCK_SLACK_S = 5.0
EPOCH_S = 1_704_067_200
"""The year 2024, before the first store there was: a clock that says less was never set."""
LOG_TAIL_BYTES = 1 * limits.MIB
LOG_LATELY_S = 86400.0
METADATA_MIN_BYTES, METADATA_GOOD_BYTES = 64 * limits.MIB, 512 * limits.MIB
_TROUBLE = re.compile(r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\S* (?P<level>WARNING|ERROR|CRITICAL) ")
_REMOTE = ("nfs", "cifs", "smb", "9p", "ceph", "fuse.sshfs", "afs")


def check_store(config: StoreConfig, now_ns: int, commit_ns: int | None) -> Iterator[Finding]:
    """`commit_ns` is when the last commit was made, None when its daemon was not there to be asked."""
    store = config.path
    yield attempt("permissions", check_permissions, config)
    yield attempt("last mount", check_last_mount, store)
    yield attempt("clock", lambda: check_clock(now_ns, commit_ns or last_commit_ns(store)))
    yield attempt("log", check_log, store / LOG_NAME, now_ns)
    yield attempt("metadata", check_metadata_place, store)


def check_permissions(config: StoreConfig) -> Finding:
    name = "permissions"
    for path in (config.path, config.path / CONFIG_NAME, *(drive.path for drive in config.drives)):
        try:
            status = path.stat()
        except OSError:
            continue  # a drive that is away: for the check of drives
        if status.st_mode & 0o022:
            return problem(
                name, f"Others may write in {path}: they could change the store.", f"'chmod go-w {path}'."
            )
        if os.geteuid() not in (0, status.st_uid):
            return problem(
                name,
                f"{path} belongs to user {status.st_uid}.",
                "Run this, and mount, as that user or as root.",
            )
    return ok(name, f"{config.path} is for its owner to write.")


def check_last_mount(store: Path) -> Finding:
    name = "last mount"
    holder, ending = storelock.read_lock(store)
    if holder is not None:
        if holder.mountpoint and mounts.mount_of_store(store) is None:
            return warning(
                name,
                f"Process {holder.pid} has the store, and it is not mounted.",
                f"It is shutting down or starting; if that lasts, look into {store / LOG_NAME}.",
            )
        return ok(name, f"Process {holder.pid} has the store.")
    if ending is not None:
        if ending.exit_code == 0:
            return ok(name, "It ended with everything on the drives.")
        return problem(
            name,
            f"It ended badly: {ending.message}",
            f"Mend that, then 'ciaosfs mount {store}' shows the last commit.",
        )
    if storelock.was_owned(store):
        return warning(
            name,
            "Its daemon was killed, or the machine went down.",
            f"'ciaosfs mount {store}' shows the last commit; nothing else needs to be done.",
        )
    return ok(name, "The store has not been mounted yet.")


def last_commit_ns(store: Path) -> int | None:
    """When the commit was made that the database is at; None when that cannot be told."""
    path = database_path(store)
    if not path.exists():
        return None
    try:
        with Reader(path) as reader:
            state = read_state(reader)
    except CiaosError:
        return None  # `ciaosfs check` is for that
    return None if state is None else state.time_ns or None


def check_clock(now_ns: int, commit_ns: int | None) -> Finding:
    name = "clock"
    shown = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now_ns / 1e9))
    remedy = "Set it before you mount ('timedatectl set-ntp true'): files would get times of the past."
    if now_ns < EPOCH_S * 10**9:
        return problem(name, f"It says {shown}: it was never set.", remedy)
    if commit_ns is None:
        return ok(name, f"It says {shown}.")
    behind_s = (commit_ns - now_ns) / 1e9
    if behind_s > CLOCK_SLACK_S:
        return problem(
            name,
            f"It says {shown}, {format_duration(behind_s)} before the last commit: it was set back.",
            remedy,
        )
    return ok(name, f"It says {shown}, {format_duration(max(0.0, -behind_s))} after the last commit.")


def check_log(path: Path, now_ns: int) -> Finding:
    """What went wrong in the last day, as far as the end of the log tells."""
    name = "log"
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ok(name, "There is none yet.")
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now_ns / 1e9 - LOG_LATELY_S))
    found = [line for line in lines if (match := _TROUBLE.match(line)) is not None and match["time"] >= since]
    if not found:
        return ok(name, "No warning or error within a day.")
    last = "".join(letter if letter.isprintable() else "?" for letter in found[-1])
    noun = "line" if len(found) == 1 else "lines"
    return warning(name, f"{len(found)} {noun} of trouble within a day, the last: {last}", f"Read {path}.")


def check_metadata_place(store: Path) -> Finding:
    name = "metadata"
    place = store.resolve()
    kinds = {
        mount.mountpoint: mount.fstype
        for mount in mounts.parse_mountinfo(mounts.MOUNTINFO.read_bytes())
        if place.is_relative_to(mount.mountpoint)
    }
    kind = kinds[max(kinds, key=lambda mountpoint: len(mountpoint.parts))] if kinds else "unknown"
    if kind.startswith(_REMOTE):
        return problem(
            name,
            f"{store} is on a {kind} file system: SQLite's log does not work over a network.",
            "Move the directory of the store to a local disk; drives may stay where they are.",
        )
    status = os.statvfs(store)
    free = status.f_bavail * status.f_frsize
    if free < METADATA_GOOD_BYTES:
        found = problem if free < METADATA_MIN_BYTES else warning
        return found(
            name,
            f"Only {format_bytes(free)} are free for the metadata at {store}.",
            "Free some there, or move the directory of the store: without space no change can be made.",
        )
    return ok(name, f"{format_bytes(free)} are free at {store} ({kind}).")
