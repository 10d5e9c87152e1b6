"""What can be asked about drives: which there are, and that one is added, emptied and removed, or replaced."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ciaosfs.base.config import DriveLabels, parse_labels
from ciaosfs.base.errors import UsageError
from ciaosfs.fs.drives import DriveAdministration
from ciaosfs.jobs.drain import KIND, submit_drain
from ciaosfs.jobs.runner import JobRunner
from ciaosfsd.control.handlers_jobs import job_fields
from ciaosfsd.control.server import Handler


class DriveHandlers:
    """The handlers of one mounted store. A drive in the mount itself is refused: it would wait for itself."""

    def __init__(self, drives: DriveAdministration, runner: JobRunner, mountpoint: os.PathLike[str]) -> None:
        self._drives = drives
        self._runner = runner
        self._mountpoint = mountpoint

    def by_operation(self) -> dict[str, Handler]:
        return {
            "drive-list": self.list_drives,
            "drive-add": self.add,
            "drive-remove": self.remove,
            "drive-replace": self.replace,
        }

    async def list_drives(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Every drive, by number, and the job that empties it if there is one. Sizes in bytes."""
        held = await self._drives.shards_by_drive()
        jobs = {
            status.arguments.get("drive"): job_fields(status)
            for status in self._runner.jobs()
            if status.kind == KIND and not status.is_finished
        }
        drives = []
        for drive in self._drives.statuses():
            shards, shard_bytes = held.get(drive.number, (0, 0))
            drives.append(
                {
                    "number": drive.number,
                    "path": drive.path,
                    "state": str(drive.state),
                    "draining": drive.is_draining,
                    "labels": dict(drive.labels),
                    "shards": shards,
                    "shard_bytes": shard_bytes,
                    "free": drive.free,
                    "total": drive.total,
                    "reason": drive.reason,
                    "job": jobs.get(drive.number),
                }
            )
        return {"drives": drives, "weakness": self._drives.weakness()}

    async def add(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Make the directory `path` a drive, with `labels`, and use it at once."""
        path, labels = self._take_place(arguments)
        return {"number": await self._drives.add(path, labels), "path": os.fspath(path)}

    async def remove(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Begin to empty drive `number`; it is let go when that is done."""
        number = _take_number(arguments)
        await self._drives.begin_removal(number)
        return {"number": number, "job": await self._begin_drain(number)}

    async def replace(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Add `path` as a drive and begin to empty drive `replaced`."""
        replaced = _take_number(arguments)
        path, labels = self._take_place(arguments)
        number = await self._drives.replace(replaced, path, labels)
        return {
            "number": number,
            "replaced": replaced,
            "path": os.fspath(path),
            "job": await self._begin_drain(replaced),
        }

    async def _begin_drain(self, number: int) -> dict[str, Any]:
        return job_fields(self._runner.job(await submit_drain(self._runner, number)))

    def _take_place(self, arguments: Mapping[str, Any]) -> tuple[Path, DriveLabels]:
        path, labels = arguments.get("path"), arguments.get("labels", [])
        if not isinstance(path, str) or "\0" in path:
            raise UsageError(f"The directory of a drive is missing, or {path!r} is none.")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise UsageError("The labels of a drive are a list like host=a, disk=b.")
        place = Path(os.path.normpath(path))
        if place.is_relative_to(self._mountpoint):
            raise UsageError(f"{place} lies in the mount of this store: give a directory on a disk.")
        return place, parse_labels(labels)


def _take_number(arguments: Mapping[str, Any]) -> int:
    value = arguments.get("number")
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"The number of a drive is missing, or {value!r} is none.")
    return value
