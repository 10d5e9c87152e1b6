"""The only place that builds: from a configuration to a mounted, controllable file system."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ciaosfs.access.authority import open_authority
from ciaosfs.base.config import StoreConfig
from ciaosfs.client import mounts, transport
from ciaosfs.drive.workers import Workers
from ciaosfs.fs.opening import open_store
from ciaosfs.jobs.opening import open_jobs
from ciaosfs.objects.agent import Agent
from ciaosfs.objects.store import ObjectStore
from ciaosfsd.control.handlers_access import AccessHandlers
from ciaosfsd.control.handlers_admin import AdminHandlers
from ciaosfsd.control.handlers_check import CheckHandlers
from ciaosfsd.control.handlers_drives import DriveHandlers
from ciaosfsd.control.handlers_hello import HelloHandlers
from ciaosfsd.control.handlers_jobs import JobHandlers
from ciaosfsd.control.handlers_objects import ObjectHandlers
from ciaosfsd.control.handlers_sessions import SessionHandlers
from ciaosfsd.control.handlers_stats import StatsHandlers
from ciaosfsd.control.peer import TokenChecks
from ciaosfsd.control.server import ControlServer
from ciaosfsd.folders import Folders
from ciaosfsd.fuse.awake import open_awake
from ciaosfsd.fuse.kernelcache import forget_name
from ciaosfsd.fuse.session import Session, mounted
from ciaosfsd.guarding import open_guarding
from ciaosfsd.metrics.endpoint import Endpoint, listening
from ciaosfsd.metrics.requests import Requests
from ciaosfsd.metrics.snapshot import Snapshots


@dataclass(frozen=True, slots=True)
class Services:
    """What runs while a store is mounted. `lifecycle.run` starts and stops it. `reports` says what the opening mended."""

    session: Session
    control: ControlServer
    objects: ObjectStore
    metrics: Endpoint | None
    reports: tuple[str, ...]

    async def stop(self) -> None:
        """End what uses the mount from this side, then unmount."""
        await self.objects.end()
        await self.session.stop()


@asynccontextmanager
async def build(
    config: StoreConfig,
    mountpoint: Path,
    socket: Path,
    stop: Callable[[], None],
    mount_options: Collection[str] = (),
) -> AsyncIterator[Services]:
    """Open the store and mount it; leaving unmounts, flushes everything and closes, in that order.

    `stop` is what the control socket's `stop` calls, `mount_options` are some of `mounts.MOUNT_OPTIONS`.
    Raises CiaosError when the store cannot be opened, the mount is refused, or what was written could not be
    brought onto the drives at the end.
    """
    requests = Requests()
    async with (
        Workers() as workers,
        open_store(config, workers) as filesystem,
        open_authority(filesystem.parts.meta, filesystem.parts.gate.wait_open, filesystem.sync) as authority,
        open_jobs(config, filesystem.parts) as jobs,
        open_guarding(filesystem, authority, mountpoint, by_tokens=config.access == "tokens") as guarding,
        Agent(mountpoint) as agent,
    ):
        with (
            listening(config.metrics_port) as port,
            open_awake(is_wanted=config.keep_awake) as awake,
            mounted(
                filesystem,
                guarding.handlers,
                guarding.ready,
                mountpoint,
                config.path,
                workers,
                requests,
                mount_options,
                agent.is_at_work,
                awake,
            ) as session,
        ):
            admin = AdminHandlers(
                config, filesystem, mountpoint, session.flush_kernel, stop, jobs.healer.lost_stripes
            )
            objects = ObjectStore(filesystem, agent, forget_name)
            snapshots = Snapshots(config.path, mountpoint, filesystem, jobs, requests)
            checks = TokenChecks(authority.verify, guarding.sessions.grant_of, authority.is_live)
            rows = [
                *admin.operations(),
                *AccessHandlers(
                    authority, Folders(filesystem, workers, forget_name).make, workers
                ).operations(),
                *SessionHandlers(
                    guarding.sessions, guarding.processes, authority.verify, authority.is_live
                ).operations(),
                *JobHandlers(jobs).operations(),
                *DriveHandlers(jobs.drives, jobs.runner, mountpoint).operations(),
                *CheckHandlers(filesystem, jobs.healer.lost_stripes).operations(),
                *ObjectHandlers(objects).operations(),
                *StatsHandlers(snapshots).operations(),
            ]
            rows += HelloHandlers(config, mountpoint, rows, checks.verify, config.access).operations()
            mount = mounts.mount_at(mountpoint)
            name = None if mount is None else transport.mount_socket_path(mount)
            if mount is not None:
                agent.stand_on(mount.device_number)
            endpoint = None if port is None else Endpoint(port, snapshots.metrics)
            yield Services(
                session,
                ControlServer(socket, rows, checks, name),
                objects,
                endpoint,
                filesystem.status().reports,
            )
