"""`ciaosfs mount`: start the daemon and wait until the mount answers, or for the reason why it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ciaosfs.base import errors, limits
from ciaosfs.base.config import PORT_MAX, load_config
from ciaosfs.base.errors import CiaosError, DaemonError, MountError
from ciaosfs.cli import output
from ciaosfs.cli.paths import LocalPath
from ciaosfs.client import mounts, storelock

MALLOC_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": str(8 * limits.MIB),
    "MALLOC_TRIM_THRESHOLD_": str(64 * limits.MIB),
    "MALLOC_ARENA_MAX": "1",
}
"""For the daemon, unless the caller's environment says otherwise. By default glibc maps and unmaps, and the kernel
clears, each buffer of 1 MiB: without that a stream of 1 MiB writes and reads took 15 % less processor time. One
arena for all threads, for each keeps what its worst moment took: under all loads in turn the daemon came to 223 MiB with
two, to 205 with one, at the same speed."""


@click.command("mount")
@click.argument("store", type=LocalPath(path_type=Path))
@click.argument("mountpoint", type=LocalPath(path_type=Path), required=False)
@click.option(
    "--option",
    "-o",
    "wanted",
    type=click.Choice(mounts.MOUNT_OPTIONS),
    multiple=True,
    help="What the mount shall be, as for mount(8). More than once for more.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, PORT_MAX),
    metavar="PORT",
    help="Let Prometheus read metrics at http://127.0.0.1:PORT/metrics, whatever ciaosfs.toml says; 0: nowhere.",
)
@click.option("--foreground", "-f", is_flag=True, help="Stay in the foreground and log to the terminal.")
@click.option("--debug", is_flag=True, help="Log more.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as a JSON line.")
def command(
    store: Path,
    mountpoint: Path | None,
    wanted: Sequence[str],
    metrics_port: int | None,
    foreground: bool,
    debug: bool,
    as_json: bool,
) -> None:
    """Mount the store in the directory STORE at MOUNTPOINT; returns when the mount answers.

    MOUNTPOINT is an empty directory, by default /mnt/ciaos for root and ~/ciaos for a user (these two are
    made when they are missing). What a daemon of STORE that was killed left mounted there is taken away first.
    The daemon logs to STORE/ciaosfsd.log.

    \b
    Example:
      ciaosfs mount /srv/store /mnt/ciaos
      ciaosfs mount /srv/store /mnt/ciaos --metrics-port 9464
    """
    config = load_config(store.resolve())
    if mountpoint is None:
        mountpoint = _default_mountpoint()
    options = [*daemon_options(wanted), *(["--debug"] if debug else [])]
    if metrics_port is not None:
        options += ["--metrics-port", str(metrics_port)]
    if foreground:
        _detach_dead(config.path, mountpoint)
        command = [*_daemon_command(config.path, mountpoint), *options, "--foreground"]
        os.execve(command[0], command, _environment())
    reports = start(config.path, mountpoint, options)
    if as_json:
        fields = {"store": os.fspath(config.path), "mountpoint": os.fspath(mountpoint), "reports": reports}
        output.print_json("mount", fields)


def daemon_options(wanted: Sequence[str]) -> list[str]:
    """The daemon's arguments for some of `mounts.MOUNT_OPTIONS`."""
    return [argument for option in wanted for argument in ("--option", option)]


def start(store: Path, mountpoint: Path, options: Sequence[str] = ()) -> list[str]:
    """Run the daemon in the background; returns when the mount answers. Raises its failure as a CiaosError.

    What the opening had to mend is said to the person, and returned.
    """
    _detach_dead(store, mountpoint)
    reading, writing = os.pipe()
    with open(reading, "rb") as report:
        try:
            child = subprocess.Popen(
                [*_daemon_command(store, mountpoint), *options, "--report-fd", str(writing)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[writing],
                start_new_session=True,
                env=_environment(),
            )
        finally:
            os.close(writing)
        try:
            line = report.readline()
        except KeyboardInterrupt:
            child.terminate()
            raise
    reports = _interpret(line, child)
    child.returncode = 0  # it lives on by itself: no warning that it was not waited for
    try:
        mountpoint.stat()
    except OSError as error:
        raise MountError(f"{mountpoint} does not answer: {error.strerror}.") from error
    for sentence in reports:
        output.talk(f"ciaosfs: {sentence}")
    return reports


def _detach_dead(store: Path, mountpoint: Path) -> None:
    if storelock.detach_dead_mount(store, mounts.resolve_mountpoint(mountpoint)):
        output.talk(
            f"ciaosfs: the daemon of {store} had died, its dead mount at {mountpoint} was taken away: "
            "mounting its last commit."
        )


def _interpret(line: bytes, child: subprocess.Popen[bytes]) -> list[str]:
    """What the daemon reports, when it is ready; else its failure is raised."""
    try:
        fields: dict[str, Any] = json.loads(line)
    except ValueError:
        status = child.wait()
        raise DaemonError(
            f"The daemon ended with status {status} before the mount answered: see ciaosfsd.log in the store."
        ) from None
    if fields.get("ready") is not True:
        child.wait()
        raise _failure(int(fields["exit_code"]), str(fields["message"]))
    return [str(sentence) for sentence in fields["reports"]]


def _failure(exit_code: int, message: str) -> CiaosError:
    """The class whose exit status the daemon ended with."""
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, CiaosError) and kind.exit_code == exit_code:
            return kind(message)
    return CiaosError(message)


def _default_mountpoint() -> Path:
    mountpoint = Path("/mnt/ciaos") if os.geteuid() == 0 else Path.home() / "ciaos"
    if mounts.mount_at(mounts.resolve_mountpoint(mountpoint)) is not None:
        return mountpoint  # perhaps dead: then looking at it is an error
    try:
        mountpoint.mkdir(exist_ok=True)
    except OSError as error:
        raise MountError(f"{mountpoint} cannot be made: {error.strerror}; name a mount point.") from error
    return mountpoint


def _daemon_command(store: Path, mountpoint: Path) -> list[str]:
    # -P: nothing is imported from whatever directory the caller stands in.
    return [sys.executable, "-P", "-m", "ciaosfsd", os.fspath(store), os.fspath(mountpoint.absolute())]


def _environment() -> dict[str, str]:
    environment = {**MALLOC_SETTINGS, **os.environ}
    path = environment.get("PYTHONPATH")
    if path:
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(part) for part in path.split(os.pathsep))  # noqa: PTH100
    return environment
