"""What can be asked about drives: which there are, and that one is added, emptied and removed, or replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ciaosfs.base.config import DriveLabels, parse_labels
from ciaosfs.base.errors import UsageError
from ciaosfs.fs.drives import DriveAdministration
from ciaosfs.jobs.drain import KIND, submit_drain
from ciaosfs.jobs.runner import JobRunner
from ciaosfsd.control.call import Call, Operation
from ciaosfsd.control.handlers_jobs import job_fields
from ciaosfsd.control.needs import ADMIN, OWNER


class DriveHandlers:
    """The handlers of one mounted store. A drive in the mount itself is refused: it would wait for itself."""

    def __init__(self, drives: DriveAdministration, runner: JobRunner, mountpoint: os.PathLike[str]) -> None:
        self._drives = drives
        self._runner = runner
        self._mountpoint = mountpoint

    def operations(self) -> tuple[Operation, ...]:
        # What changes the machine's disks, by paths outside the store, is for the owner alone.
        return (
            Operation("drive-list", ADMIN, self.list_drives),
            Operation("drive-add", OWNER, self.add),
            Operation("drive-remove", OWNER, self.remove),
            Operation("drive-replace", OWNER, self.replace),
        )

    async def list_drives(self, call: Call) -> dict[str, Any]:
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

    async def add(self, call: Call) -> dict[str, Any]:
        """Make the directory `path` a drive, with `labels`, and use it at once."""
        path, labels = self._take_place(call)
        return {"number": await self._drives.add(path, labels), "path": os.fspath(path)}

    async def remove(self, call: Call) -> dict[str, Any]:
        """Begin to empty drive `number`; it is let go when that is done."""
        number = _take_number(call)
        await self._drives.begin_removal(number)
        return {"number": number, "job": await self._begin_drain(number)}

    async def replace(self, call: Call) -> dict[str, Any]:
        """Add `path` as a drive and begin to empty drive `replaced`."""
        replaced = _take_number(call)
        path, labels = self._take_place(call)
        number = await self._drives.replace(replaced, path, labels)
        return {
            "number": number,
            "replaced": replaced,
            "path": os.fspath(path),
            "job": await self._begin_drain(replaced),
        }

    async def _begin_drain(self, number: int) -> dict[str, Any]:
        return job_fields(self._runner.job(await submit_drain(self._runner, number)))

    def _take_place(self, call: Call) -> tuple[Path, DriveLabels]:
        path, labels = call.arguments.get("path"), call.arguments.get("labels", [])
        if not isinstance(path, str) or "\0" in path:
            raise UsageError(f"The directory of a drive is missing, or {path!r} is none.")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise UsageError("The labels of a drive are a list like host=a, disk=b.")
        place = Path(os.path.normpath(path))
        if place.is_relative_to(self._mountpoint):
            raise UsageError(f"{place} lies in the mount of this store: give a directory on a disk.")
        return place, parse_labels(labels)


def _take_number(call: Call) -> int:
    value = call.arguments.get("number")
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"The number of a drive is missing, or {value!r} is none.")
    return value
