"""The daemon's entry: check what can be checked before anything is touched, own the store, run, say how it ended.

`ciaosfs mount` starts it and waits on a pipe for one JSON line: {"ready": true, "reports"}, with sentences about what the
opening had to mend, or {"exit_code", "message"}. The same ending goes to the log and into the store's lock file, where
`ciaosfs umount` finds it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from ciaosfs.base.config import StoreConfig, load_config
from ciaosfs.base.errors import CiaosError, StoreError
from ciaosfs.base.log import LOG_NAME, set_up_file, set_up_terminal
from ciaosfs.client import mounts, storelock, transport
from ciaosfs.client.storelock import Ending, Holder
from ciaosfsd.copies import refuse_copy
from ciaosfsd.fuse.session import check_mountpoint
from ciaosfsd.lifecycle import cause_of, run

log = logging.getLogger("ciaosfsd")


class Report:
    """The pipe to whoever started the daemon; says one thing and is closed. Without a descriptor it is mute."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def ready(self, reports: Sequence[str]) -> None:
        self._say({"ready": True, "reports": list(reports)})

    def failed(self, ending: Ending) -> None:
        self._say({"exit_code": ending.exit_code, "message": ending.message})

    def _say(self, fields: dict[str, Any]) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, json.dumps(fields).encode() + b"\n")
        except BrokenPipeError:
            log.info("nobody waits for the mount any more")
        os.close(self._descriptor)
        self._descriptor = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon for one store; returns the exit status."""
    options = _parse(arguments)
    report = Report(options.report_fd)
    if options.report_fd is not None:
        os.set_inheritable(options.report_fd, False)
    os.umask(0o077)  # what lies in a store is for its owner; modes of mounted files are not the daemon's
    _raise_descriptor_limit()
    ending = _run_reporting(options, report)
    report.failed(ending)
    return ending.exit_code


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ciaosfsd", description="Serve one ciaosfs store. 'ciaosfs mount' starts this."
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("--foreground", action="store_true", help="log to the terminal, not into the store")
    parser.add_argument("--debug", action="store_true", help="log more")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        choices=mounts.MOUNT_OPTIONS,
        help="what the mount shall be, too",
    )
    parser.add_argument(
        "--metrics-port", type=int, help="instead of the store's own; 0: no metrics on a port"
    )
    parser.add_argument(
        "--report-fd", type=int, help="pipe on which to say that the mount answers, or why not"
    )
    return parser.parse_args(arguments)


def _raise_descriptor_limit() -> None:
    """To what is allowed: each volume in use takes a descriptor."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _run_reporting(options: argparse.Namespace, report: Report) -> Ending:
    """Run, and turn whatever ends it into an ending."""
    try:
        config = load_config(options.store.resolve())
        if options.metrics_port is not None:
            config = replace(config, metrics_port=options.metrics_port)
        mountpoint = check_mountpoint(options.mountpoint)
        transport.make_runtime_directory()
        socket = transport.socket_path(config.store_id)
        with storelock.hold(config.path) as lock:
            _set_up_log(config, options)
            os.chdir("/")
            lock.announce(Holder(os.getpid(), os.fspath(mountpoint), os.fspath(socket)))
            ending = _run(config, mountpoint, socket, report, options.option)
            lock.end(ending)
            return ending
    except CiaosError as error:
        if options.foreground:
            set_up_terminal()
            log.error("%s", error)
        return Ending(error.exit_code, error.message)
    except KeyboardInterrupt:
        return Ending(130, "Interrupted.")


def _set_up_log(config: StoreConfig, options: argparse.Namespace) -> None:
    level = logging.DEBUG if options.debug else logging.INFO
    if options.foreground:
        set_up_terminal(level)
    else:
        path = config.path / LOG_NAME
        try:
            set_up_file(path, level, with_stderr=True)
        except OSError as error:
            raise StoreError(
                f"The log cannot be written to {path}: {error.strerror}; see what is there, and move it away."
            ) from error
    # trio and pyfuse3 log each park and each worker at debug level.
    logging.getLogger("pyfuse3").setLevel(logging.INFO)


def _run(
    config: StoreConfig, mountpoint: Path, socket: Path, report: Report, mount_options: Sequence[str]
) -> Ending:
    log.info("starting pid=%d store=%s mountpoint=%s", os.getpid(), config.path, mountpoint)
    try:
        refuse_copy(config.path, socket)
        trio.run(partial(run, config, mountpoint, socket, report.ready, mount_options))
    except BaseException as error:  # noqa: BLE001 - the last stop: logged, reported, and the exit status
        return _ending_of(cause_of(error), error, config)
    log.info("ended, everything is on the drives")
    return Ending(0)


def _ending_of(cause: BaseException, error: BaseException, config: StoreConfig) -> Ending:
    if isinstance(cause, CiaosError):
        log.error("ended: %s", cause)
        return Ending(cause.exit_code, cause.message)
    log.critical("ended by a bug", exc_info=error)
    return Ending(1, f"The daemon failed ({type(cause).__name__}: {cause}): see {config.path / LOG_NAME}.")
