"""A file system that forgets: records what SQLite writes and syncs, and makes what a power cut could leave of
it.

What was synced is certain; of what was not, every write is there or not, by dice: often all
up to one moment, or all after it. A file that is cut to
nothing gets new space: when the cut itself was lost, so was everything written after it (file systems with a
journal keep that order; it is the one thing asked of them).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import pytest

from ciaosfs.meta import checkpoint, wal
from ciaosfs.meta.connections import database_files

SECTOR = 512


@dataclass
class Operation:
    """`data` written at `offset`, a cut to `offset` bytes (no data), a sync (neither), or a removal."""

    name: str
    offset: int | None = None
    data: bytes | None = None
    is_removal: bool = False


@dataclass
class Recorder:
    """Everything that was asked of the disk, in order."""

    operations: list[Operation] = field(default_factory=list)

    def crash(self, at: int, dice: random.Random, directory: Path) -> Path:
        """The files as a power cut after `at` operations could leave them, in `directory`; the database's
        path.
        """
        files: dict[str, list[Operation]] = {}
        for operation in self.operations[:at]:
            if operation.is_removal:
                files.pop(operation.name, None)
            else:
                files.setdefault(operation.name, []).append(operation)
        for name, operations in files.items():
            (directory / name).write_bytes(_remains(operations, dice))
        return directory / "m"


def _remains(operations: list[Operation], dice: random.Random) -> bytes:
    syncs = [number for number, operation in enumerate(operations) if operation.offset is None]
    certain = syncs[-1] if syncs else -1
    pivot = dice.randrange(certain, len(operations) + 1)
    early, late = dice.choice(
        ((0.0, 0.0), (1.0, 1.0), (0.5, 0.5), (0.9, 0.9), (1.0, 0.0), (0.0, 1.0), (0.0, 0.9))
    )
    content = bytearray()
    for number, operation in enumerate(operations):
        if operation.offset is None:
            continue
        is_kept = number < certain or dice.random() < (early if number < pivot else late)
        if operation.data is None:
            if not is_kept:
                break
            del content[operation.offset :]
        elif is_kept:
            data = operation.data
            if number > certain and dice.random() < 0.1:
                data = data[: dice.randrange(len(data) + 1) // SECTOR * SECTOR]
            content.extend(bytes(max(0, operation.offset + len(data) - len(content))))
            content[operation.offset : operation.offset + len(data)] = data
    return bytes(content)


@contextmanager
def recorded() -> Iterator[Recorder]:
    """Connections opened inside write through a recorder."""
    recorder = Recorder()
    note = recorder.operations.append

    class RecordingFile(apsw.VFSFile):
        def __init__(self, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
            super().__init__("", name, flags)
            self.name = Path(name.filename() if isinstance(name, apsw.URIFilename) else str(name)).name

        def xWrite(self, data: bytes, offset: int) -> None:
            note(Operation(self.name, offset, bytes(data)))
            super().xWrite(data, offset)

        def xTruncate(self, size: int) -> None:
            note(Operation(self.name, size))
            super().xTruncate(size)

        def xSync(self, flags: int) -> None:
            note(Operation(self.name))
            super().xSync(flags)

    class RecordingVFS(apsw.VFS):
        def __init__(self) -> None:
            super().__init__("recording", "")

        def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
            return RecordingFile(name, flags)

        def xDelete(self, filename: str, syncdir: bool) -> None:
            note(Operation(Path(filename).name, is_removal=True))
            super().xDelete(filename, syncdir)

    def note_copied(path: Path, frames: int) -> None:
        wal.note_copied(path, frames)
        copied = database_files(path).copied
        note(Operation(copied.name, 0, copied.read_bytes()))
        note(Operation(copied.name))

    vfs = RecordingVFS()
    opened = apsw.Connection

    def connection(path: str, **options: int) -> apsw.Connection:
        return opened(path, vfs="recording", **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apsw, "Connection", connection)
        patch.setattr(checkpoint, "note_copied", note_copied)
        yield recorder
    vfs.unregister()
