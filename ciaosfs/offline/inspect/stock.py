"""What is left of a store to look at: the drives that open, their volumes, and the database if it can be read."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

from ciaosfs.base.config import StoreConfig
from ciaosfs.base.errors import CiaosError, LogDamagedError, StoreError
from ciaosfs.drive.interface import Drive, DriveFile
from ciaosfs.drive.local import open_drive, volume_name
from ciaosfs.fs.boot import database_path
from ciaosfs.meta.reader import Reader
from ciaosfs.volume.files import volume_id_of

Facts = dict[str, Any]


class Stock:
    """A context manager. `reader` is None when the database cannot be read, and `database_trouble` says why."""

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        self.drives: dict[int, Drive] = {}
        self.drive_trouble: dict[int, str] = {}
        self.reader: Reader | None = None
        self.database_trouble = ""
        self._stack = ExitStack()

    def __enter__(self) -> Stock:
        for drive in self.config.drives:
            try:
                opened = open_drive(str(drive.path), self.config.store_id, drive.number, to_look=True)
            except CiaosError as error:
                self.drive_trouble[drive.number] = error.message
                continue
            self._stack.callback(opened.close)
            if opened.uuid != drive.uuid:
                self.drive_trouble[drive.number] = (
                    f"Another drive is at {drive.path}: {shown_uuid(opened.uuid)}."
                )
                continue
            self.drives[drive.number] = opened
        path = database_path(self.config.path)
        try:
            if not path.exists():
                raise LogDamagedError(f"The metadata database {path} is missing.")
            self.reader = self._stack.enter_context(Reader(path))
        except (LogDamagedError, StoreError) as error:
            self.database_trouble = error.message
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def volumes(self, drive: Drive) -> list[int]:
        """The ids of the volumes on a drive, oldest first; none when it cannot be listed."""
        try:
            return sorted(volume_id_of(name) for name in drive.names())
        except (CiaosError, OSError):
            return []

    def drive_of(self, volume_id: int) -> Drive | None:
        """The drive that has the volume."""
        name = volume_name(volume_id)
        return next((drive for drive in self.drives.values() if name in drive.names()), None)

    @contextmanager
    def opened(self, volume_id: int) -> Iterator[tuple[Drive, DriveFile]]:
        """A volume to read from. StoreError when no drive that is there has it, OSError."""
        drive = self.drive_of(volume_id)
        if drive is None:
            away = ", ".join(map(str, sorted(self.drive_trouble)))
            hint = f" (drive {away} is away)" if away else ""
            raise StoreError(f"Volume {volume_id:016x} is on no drive that is there{hint}.")
        file = drive.open(volume_name(volume_id))
        try:
            yield drive, file
        finally:
            file.close()

    def trouble(self) -> list[str]:
        """A sentence for each part of the store that cannot be read."""
        return [*filter(None, [self.database_trouble]), *self.drive_trouble.values()]


def shown_uuid(value: bytes) -> str:
    """An identity as `drive.json` and the configuration write it."""
    return str(uuid.UUID(bytes=value)) if len(value) == 16 else value.hex()


def shown_id(value: int) -> str:
    """The id of a volume or commit."""
    return f"{value:016x}"
