"""Volumes and drives."""

from __future__ import annotations

from ciaosfs.base.types import VolumeKind
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.volumes import DriveRow, DriveState, VolumeRow
from tests.unit.meta.support import VOLUME_ID


def test_a_volume_is_noted_again_when_its_state_changes(meta: Metadata) -> None:
    meta.volumes.note(9000, 2, VolumeKind.LOG, "open")
    meta.volumes.note(9000, 2, VolumeKind.LOG, "sealed")
    assert meta.volumes.load(9000) == VolumeRow(9000, 2, VolumeKind.LOG, "sealed")
    assert meta.volumes.load(9001) is None
    assert [row.volume_id for row in meta.volumes.all()] == [*range(VOLUME_ID, VOLUME_ID + 6), 9000]
    assert meta.volumes.highest_id() == 9000
    meta.volumes.delete(9000)
    assert meta.volumes.highest_id() == VOLUME_ID + 5


def test_a_replaced_drive_keeps_its_number(meta: Metadata) -> None:
    old = DriveRow(1, bytes(16), DriveState.ACTIVE, 5)
    new = DriveRow(1, bytes(range(16)), DriveState.DRAINING, 6)
    meta.volumes.put_drive(DriveRow(0, bytes(16), DriveState.ACTIVE, 5))
    meta.volumes.put_drive(old)
    meta.volumes.put_drive(new)
    assert meta.volumes.drives()[1:] == [new]
    assert isinstance(meta.volumes.drives()[1].state, DriveState)
    meta.volumes.delete_drive(0)
    assert meta.volumes.drives() == [new]
