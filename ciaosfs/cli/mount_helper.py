"""`mount.fuse.ciaosfs`: what mount(8) runs for `mount -t fuse.ciaosfs STORE MOUNTPOINT` and for a line in fstab.

mount(8) calls it as `mount.fuse.ciaosfs STORE MOUNTPOINT [-sfnv] [-o OPTIONS]` when it lies in /sbin, and expects
its own exit statuses: 1 for wrong usage, 32 for a mount that failed.
"""

from __future__ import annotations

import getopt
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ciaosfs.base.config import load_config
from ciaosfs.base.errors import CiaosError
from ciaosfs.cli import cmd_mount, output
from ciaosfs.client import mounts

WRONG_USAGE = 1
MOUNT_FAILED = 32
_GENERIC = frozenset(
    {
        "rw",
        "auto",
        "noauto",
        "user",
        "nouser",
        "users",
        "owner",
        "group",
        "nofail",
        "_netdev",
        "defaults",
        "async",
        "atime",
        "noatime",
        "nodiratime",
        "relatime",
        "suid",
        "dev",
        "exec",
    }
)
"""Options of fstab that are mount(8)'s own or are so anyway."""


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Mount as mount(8) asks; returns its kind of exit status."""
    try:
        flags, places = getopt.gnu_getopt(list(arguments), "sfnvo:t:N:")
    except getopt.GetoptError as error:
        return _fail(WRONG_USAGE, f"{error}.")
    if len(places) != 2:
        return _fail(WRONG_USAGE, "usage: mount.fuse.ciaosfs STORE MOUNTPOINT [-sfnv] [-o OPTIONS]")
    given = dict(flags)
    options = [option for name, value in flags if name == "-o" for option in value.split(",") if option]
    wanted = [option for option in options if option in mounts.MOUNT_OPTIONS]
    unknown = [
        option
        for option in options
        if option not in wanted and option not in _GENERIC and not option.startswith(("x-", "comment="))
    ]
    if "remount" in options:
        return _remount(Path(places[1]), options)
    if unknown and "-s" not in given:
        return _fail(WRONG_USAGE, f"ciaosfs has no mount option {', '.join(unknown)}: leave it out.")
    if "-f" in given:  # fake: everything but the mount
        return 0
    try:
        config = load_config(Path(places[0]).resolve())
        cmd_mount.start(config.path, Path(places[1]), cmd_mount.daemon_options(wanted))
    except CiaosError as error:
        return _fail(MOUNT_FAILED, error.message)
    return 0


def _remount(mountpoint: Path, options: Sequence[str]) -> int:
    """Change what the kernel lets through, as `mount -o remount,ro` does; the daemon has no part in it."""
    command = ["mount", "--internal-only", "-o", ",".join(options), str(mountpoint)]
    return subprocess.run(command, check=False).returncode


def _fail(status: int, sentence: str) -> int:
    output.talk(f"mount.fuse.ciaosfs: {sentence}")
    return status
