"""Which volumes exist on the drives that are there, and a bounded set of descriptors to read them with.

A volume is known by its file's name; it is opened, and its superblock read, when something is first read from
it. One whose superblock is damaged is read all the same: every needle says itself which store, volume and
place it belongs to. Reading threads pin a volume. A descriptor is closed in the loop only, and only unpinned,
or after it was taken out of sight: so the loop may read through `VolumeFile.file` without a pin, and no
descriptor is closed, and its number given to another file, under a thread that uses it.

Reading needs nothing from whoever writes a volume: an appender has a descriptor of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ciaosfs.base.errors import DriveGoneError, ShardDamagedError
from ciaosfs.base.limits import VOLUME_SUPERBLOCK_BYTES
from ciaosfs.codec.superblock import Superblock, decode_superblock
from ciaosfs.drive.interface import Drive, DriveFile
from ciaosfs.drive.local import volume_name

log = logging.getLogger(__name__)

OPEN_FILES_MAX = 256
"""Descriptors kept open for reading. The usual limit of a process is 1024, and writers and connections need
some."""


def volume_id_of(name: str) -> int:
    """The id of the volume whose file has this name; the inverse of `volume_name`."""
    return int(name.partition(".")[0], 16)


class VolumeFile:
    """One volume on a drive that is there. `file` is None while it is not open and for ever once the drive
    left."""

    __slots__ = (
        "_lock",
        "_opening",
        "_pins",
        "_retired",
        "drive",
        "drive_number",
        "file",
        "is_gone",
        "superblock",
        "superblock_error",
        "volume_id",
    )

    def __init__(self, volume_id: int, drive: Drive) -> None:
        self.volume_id = volume_id
        self.drive = drive
        self.drive_number = drive.number
        self.file: DriveFile | None = None
        self.superblock: Superblock | None = None
        """None until the volume was opened, and for good when what it begins with is damaged."""
        self.superblock_error = ""
        self.is_gone = False
        self._lock = threading.Lock()
        """Held for moments only, never over I/O: the loop takes it too."""
        self._opening = threading.Lock()
        self._pins = 0
        self._retired: DriveFile | None = None

    def pin(self, store_id: bytes) -> DriveFile:
        """Open the file if it is not and keep it open until `unpin`. Blocking, for any thread.

        Raises DriveGoneError once the drive is away, StoreError when a newer ciaosfs made the volume,
        FileNotFoundError and OSError as opening does.
        """
        file = self._pin_if_open()
        if file is not None:
            return file
        with self._opening:
            file = self._pin_if_open()
            if file is not None:
                return file
            file = self._open(store_id)
            with self._lock:
                if self.is_gone:
                    file.close()
                    raise self._gone_error()
                self.file = file
                self._pins += 1
                return file

    def _pin_if_open(self) -> DriveFile | None:
        with self._lock:
            if self.is_gone:
                raise self._gone_error()
            if self.file is not None:
                self._pins += 1
            return self.file

    def _gone_error(self) -> DriveGoneError:
        return DriveGoneError(f"Drive {self.drive_number} with volume {self.volume_id:016x} is away.")

    def unpin(self) -> None:
        with self._lock:
            self._pins -= 1
            if self._pins == 0 and self._retired is not None:
                self._retired.close()
                self._retired = None

    def close_if_idle(self) -> bool:
        """In the loop: close the descriptor unless somebody uses it. True when it is closed."""
        with self._lock:
            if self._pins:
                return False
            file, self.file = self.file, None
            if file is not None:
                file.close()
            return True

    def go(self) -> None:
        """In the loop: the drive left or the volume was removed. Threads finish with what they have."""
        with self._lock:
            self.is_gone = True
            file, self.file = self.file, None
            if file is None:
                return
            if self._pins:
                self._retired = file
            else:
                file.close()

    def _open(self, store_id: bytes) -> DriveFile:
        file = self.drive.open(volume_name(self.volume_id))
        try:
            if self.superblock is None and not self.superblock_error:
                head = file.read(0, VOLUME_SUPERBLOCK_BYTES)
                try:
                    self.superblock = decode_superblock(head, store_id=store_id, volume_id=self.volume_id)
                except ShardDamagedError as error:
                    log.warning("volume %016x on drive %d: %s", self.volume_id, self.drive_number, error)
                    self.superblock_error = str(error)
        except BaseException:
            file.close()
            raise
        return file


class VolumeFiles:
    """The volumes of all present drives. All methods may be called from any thread, those that close in the
    loop."""

    def __init__(self, store_id: bytes, open_max: int = OPEN_FILES_MAX) -> None:
        self.store_id = store_id
        self._open_max = open_max
        self._volumes: dict[int, VolumeFile] = {}
        self._open: dict[int, VolumeFile] = {}
        """Those opened, least recently opened or used by a thread first."""
        self._lock = threading.Lock()

    def attach(self, drive: Drive, names: Iterable[str]) -> None:
        """A drive came, with these volume files."""
        with self._lock:
            for name in names:
                volume_id = volume_id_of(name)
                self._volumes.setdefault(volume_id, VolumeFile(volume_id, drive))

    def add(self, volume_id: int, drive: Drive) -> None:
        """A volume was made on `drive`."""
        self.attach(drive, [volume_name(volume_id)])

    def detach(self, drive_number: int) -> None:
        """In the loop: a drive left, its volumes with it."""
        with self._lock:
            gone = [volume for volume in self._volumes.values() if volume.drive_number == drive_number]
            for volume in gone:
                del self._volumes[volume.volume_id]
                self._open.pop(volume.volume_id, None)
        for volume in gone:
            volume.go()

    def forget(self, volume_id: int) -> None:
        """In the loop: a volume was removed."""
        with self._lock:
            volume = self._volumes.pop(volume_id, None)
            self._open.pop(volume_id, None)
        if volume is not None:
            volume.go()

    def get(self, volume_id: int) -> VolumeFile | None:
        """The volume, None when no drive that is there has it."""
        return self._volumes.get(volume_id)

    def on_drive(self, drive_number: int) -> list[int]:
        """The ids of a drive's volumes, newest first."""
        with self._lock:
            return sorted(
                (v.volume_id for v in self._volumes.values() if v.drive_number == drive_number), reverse=True
            )

    @contextmanager
    def reading(self, volume_id: int) -> Iterator[tuple[VolumeFile, DriveFile]]:
        """Pin a volume for the length of a with block. Blocking.

        Raises DriveGoneError when no drive that is there has it (whether its drive is away or it was
        deleted cannot be told from here), and as `VolumeFile.pin`.
        """
        volume = self._volumes.get(volume_id)
        if volume is None:
            raise DriveGoneError(f"Volume {volume_id:016x} is on no drive that is there.")
        file = volume.pin(self.store_id)
        try:
            with self._lock:
                self._open.pop(volume_id, None)
                if not volume.is_gone:
                    self._open[volume_id] = volume
            yield volume, file
        finally:
            volume.unpin()

    @contextmanager
    def writing(self, volume_id: int) -> Iterator[DriveFile]:
        """A descriptor of its own to change a volume with, for the length of a with block. Blocking.

        Raises DriveGoneError, FileNotFoundError, OSError. Nothing is checked about the volume.
        """
        volume = self._volumes.get(volume_id)
        if volume is None:
            raise DriveGoneError(f"Volume {volume_id:016x} is on no drive that is there.")
        file = volume.drive.open(volume_name(volume_id), writable=True)
        try:
            yield file
        finally:
            file.close()

    def superblock(self, volume_id: int) -> Superblock:
        """A volume's superblock. Blocking; raises as `reading`, and ShardDamagedError when it is damaged."""
        with self.reading(volume_id) as (volume, _):
            if volume.superblock is None:
                raise ShardDamagedError(volume.superblock_error)
            return volume.superblock

    def trim(self) -> None:
        """In the loop: close the descriptors unused for longest, down to the limit."""
        if len(self._open) <= self._open_max:
            return
        with self._lock:
            for volume_id in list(self._open)[: len(self._open) - self._open_max]:
                if self._open[volume_id].close_if_idle():
                    del self._open[volume_id]

    @property
    def open_count(self) -> int:
        return len(self._open)

    @property
    def volume_count(self) -> int:
        return len(self._volumes)

    def close(self) -> None:
        """In the loop: close everything."""
        with self._lock:
            volumes = list(self._volumes.values())
            self._volumes.clear()
            self._open.clear()
        for volume in volumes:
            volume.go()
