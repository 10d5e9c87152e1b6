"""The whole examination: the machine first, then each store that is meant, one finding after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ciaosfs.base import clock
from ciaosfs.base.config import load_config
from ciaosfs.base.errors import CiaosError
from ciaosfs.base.log import LOG_NAME
from ciaosfs.client import mounts, transport
from ciaosfs.client.locate import connect, locate
from ciaosfs.client.mounts import Mount
from ciaosfs.doctor.daemons import Safety, check_daemon
from ciaosfs.doctor.drives import check_drives
from ciaosfs.doctor.finding import Finding, problem
from ciaosfs.doctor.machine import Machine, check_machine
from ciaosfs.doctor.places import check_mounts, check_sockets
from ciaosfs.doctor.stores import check_store

ANSWER_S = 10.0
"""For a daemon to say how it is: it may have to look at every stripe."""


def examine(path: Path | None, safety: Safety) -> Iterator[Finding]:
    """Findings about the machine, and about the store that `path` means, or every store that this user has mounted.

    A store that cannot be found is a finding, too. Raises nothing of ours.
    """
    yield from check_machine(Machine.here())
    found = mounts.mounts_of_user()
    yield from check_mounts(found)
    yield from check_sockets(transport.runtime_directory())
    if path is None:
        for mount in found:
            assert mount.store is not None
            yield from _examine_store(mount.store, mount, safety)
        return
    try:
        target = locate(path)
    except CiaosError as error:
        yield problem("store", error.message, "Give the directory of a store, or a path in its mount.")
        return
    yield from _examine_store(target.store, target.mount, safety)


def _examine_store(store: Path, mount: Mount | None, safety: Safety) -> Iterator[Finding]:
    try:
        config = load_config(store)
    except CiaosError as error:
        yield problem("store", error.message, "Bring its directory back, or correct the file.")
        return
    status: dict[str, Any] | None = None
    refusal = ""
    if mount is not None:
        try:
            with connect(store) as connection:
                status = {
                    **connection.call("status", timeout_s=ANSWER_S),
                    "jobs": connection.call("job-list", timeout_s=ANSWER_S)["jobs"],
                }
        except CiaosError as error:
            refusal = error.message
    yield from check_store(config, clock.now_ns(), None if status is None else status["commit"]["time_ns"])
    yield from check_drives(config)
    if status is not None:
        yield from check_daemon(config, status, safety)
    elif refusal:
        yield problem(
            "daemon",
            refusal,
            f"If it has died, 'ciaosfs mount {store}'; if it hangs, see {store / LOG_NAME}.",
        )
