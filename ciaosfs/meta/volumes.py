"""Volumes and drives as the metadata knows them."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from ciaosfs.meta.database import Database

_NOTE: Final = (
    "INSERT INTO volumes (volume, drive, kind, state) VALUES (?1, ?2, ?3, ?4)"
    " ON CONFLICT (volume) DO UPDATE SET drive = ?2, kind = ?3, state = ?4"
)
_LOAD: Final = "SELECT volume, drive, kind, state FROM volumes WHERE volume = ?"
_ALL: Final = "SELECT volume, drive, kind, state FROM volumes ORDER BY volume"
_DELETE: Final = "DELETE FROM volumes WHERE volume = ?"
_HIGHEST: Final = "SELECT max(volume) FROM volumes"
_PUT_DRIVE: Final = (
    "INSERT INTO drives (number, uuid, state, added_ns) VALUES (?1, ?2, ?3, ?4)"
    " ON CONFLICT (number) DO UPDATE SET uuid = ?2, state = ?3, added_ns = ?4"
)
_DRIVES: Final = "SELECT number, uuid, state, added_ns FROM drives ORDER BY number"
_DRIVE: Final = "SELECT number, uuid, state, added_ns FROM drives WHERE number = ?"
_DELETE_DRIVE: Final = "DELETE FROM drives WHERE number = ?"
_ON_DRIVE: Final = "SELECT volume FROM volumes WHERE drive = ? ORDER BY volume"
_DELETE_ON_DRIVE: Final = "DELETE FROM volumes WHERE drive = ?"
_IS_USED: Final = (
    "SELECT 1 FROM volumes JOIN shards ON shards.volume = volumes.volume WHERE volumes.drive = ? LIMIT 1"
)
_HIGHEST_DRIVE: Final = (
    "SELECT max(number) FROM (SELECT number FROM drives UNION ALL SELECT drive AS number FROM volumes)"
)


class DriveState(IntEnum):
    """What is wanted of a drive, not whether it answers today. The numbers are stored."""

    ACTIVE = 1
    DRAINING = 2
    """Being emptied: nothing new is put on it."""


class VolumeRow(NamedTuple):
    """A row of `volumes`; see schema.py."""

    volume_id: int
    drive: int
    kind: int
    state: str


class DriveRow(NamedTuple):
    """A row of `drives`; see schema.py."""

    number: int
    uuid: bytes
    state: DriveState
    added_ns: int


class Volumes:
    """The volumes and drives of one database."""

    def __init__(self, database: Database) -> None:
        self._execute = database.executor()

    def note(self, volume_id: int, drive: int, kind: int, state: str) -> None:
        """A volume was made, or changed its state."""
        self._execute(_NOTE, (volume_id, drive, kind, state))

    def load(self, volume_id: int) -> VolumeRow | None:
        row = self._execute(_LOAD, (volume_id,)).get
        return None if row is None else VolumeRow._make(row)

    def all(self) -> list[VolumeRow]:
        """Every volume, lowest id first."""
        return [VolumeRow._make(row) for row in self._execute(_ALL).fetchall()]

    def highest_id(self) -> int:
        """The highest volume id there is; 0 without volumes."""
        return self._execute(_HIGHEST).get or 0

    def delete(self, volume_id: int) -> None:
        """Forget a volume; no shard may lie in it. Unknown: nothing."""
        self._execute(_DELETE, (volume_id,))

    def put_drive(self, drive: DriveRow) -> None:
        """Add a drive, or replace what is known of its number."""
        self._execute(_PUT_DRIVE, drive)

    def drives(self) -> list[DriveRow]:
        """Every drive, by number."""
        rows = self._execute(_DRIVES).fetchall()
        return [DriveRow(number, uuid, DriveState(state), added) for number, uuid, state, added in rows]

    def drive(self, number: int) -> DriveRow | None:
        row = self._execute(_DRIVE, (number,)).get
        return None if row is None else DriveRow(row[0], row[1], DriveState(row[2]), row[3])

    def highest_drive(self) -> int:
        """The highest number of a drive that is known; -1 without any."""
        highest = self._execute(_HIGHEST_DRIVE).get
        return -1 if highest is None else highest

    def on_drive(self, number: int) -> list[int]:
        """The volumes on a drive, lowest id first."""
        return [row[0] for row in self._execute(_ON_DRIVE, (number,)).fetchall()]

    def is_drive_used(self, number: int) -> bool:
        """Whether any shard lies on the drive, also of a dead stripe."""
        return self._execute(_IS_USED, (number,)).get is not None

    def delete_on_drive(self, number: int) -> None:
        """Forget all volumes of a drive that is not used."""
        self._execute(_DELETE_ON_DRIVE, (number,))

    def delete_drive(self, number: int) -> None:
        """Forget a drive; no volume may lie on it. Unknown: nothing."""
        self._execute(_DELETE_DRIVE, (number,))
