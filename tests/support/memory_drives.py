"""Drives that exist in a list alone: a test double for the edge and the commands."""

from __future__ import annotations

from pathlib import Path

from ciaosfs.base.config import DriveLabels
from ciaosfs.base.errors import UsageError
from ciaosfs.volume.driveset import DriveState, DriveStatus


class MemoryDrives:
    """What `ciaosfs.fs.drives.DriveAdministration` does, without any drive."""

    def __init__(self) -> None:
        self._drives = {number: _drive(number, Path(f"/drive{number}"), DriveLabels()) for number in range(3)}

    def statuses(self) -> list[DriveStatus]:
        return list(self._drives.values())

    def weakness(self) -> str | None:
        return None

    def draining(self) -> list[int]:
        return [drive.number for drive in self.statuses() if drive.is_draining]

    async def shards_by_drive(self) -> dict[int, tuple[int, int]]:
        return {0: (7, 7 << 20)}

    async def add(self, path: Path, labels: DriveLabels) -> int:
        number = max(self._drives) + 1
        self._drives[number] = _drive(number, path, labels)
        return number

    async def replace(self, number: int, path: Path, labels: DriveLabels) -> int:
        await self.begin_removal(number)
        return await self.add(path, labels)

    async def begin_removal(self, number: int) -> None:
        if number not in self._drives:
            raise UsageError(f"There is no drive {number}: 'ciaosfs drive list' shows those there are.")
        self._drives[number] = _drive(number, Path(self._drives[number].path), DriveLabels(), draining=True)


def _drive(number: int, path: Path, labels: DriveLabels, *, draining: bool = False) -> DriveStatus:
    free, total = 1 << 30, 2 << 30
    return DriveStatus(number, str(path), DriveState.ONLINE, free, total, "", draining, labels.fields())
