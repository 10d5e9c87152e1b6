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
_DELETE_DRIVE: Final = "DELETE FROM drives WHERE number = ?"


class DriveState(IntEnum):
    """What is wanted of a drive, not whether it answers today. The numbers are stored."""

    ACTIVE = 1
    LEAVING = 2
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

    def delete_drive(self, number: int) -> None:
        """Forget a drive; no volume may lie on it. Unknown: nothing."""
        self._execute(_DELETE_DRIVE, (number,))
