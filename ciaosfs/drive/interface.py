"""What every drive promises, above all about crashes. A *drive* holds volume files and fails as a whole.

All methods block and are for worker threads, except those that say otherwise; all may be called from several
threads at once, as long as writes do not overlap and nothing uses a file while it is closed.

The crash contract. A *crash* is the death of the process, of the kernel, or of the power.
- A file that `Drive.create` returned is found again by `names` and `open` after a crash.
- Bytes written before a `sync` of the same file that returned are there after a crash. So is its length.
- Of bytes written since, any part may be there, in any order, each sector old or new. The length may have
  grown over bytes that never arrived: those read as zeros.
- After a `sync` that raised, bytes written since the last one that returned count as lost, and no later
  `sync` of that DriveFile succeeds: the kernel forgets a failed write-back once it was reported, and a
  repeated fsync then says yes to pages that never reached the disk (PostgreSQL's "fsyncgate" of 2018).
- `remove` may be undone by a crash.

Failures of the device are OSError with the errno of the system; DriveGoneError says that the drive is not
where it was, which is no damage. Nothing here verifies what it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ciaosfs.base.types import Buffer


class FreeSpace(NamedTuple):
    """Space of the device under a drive. Drives with equal `device_id` share it."""

    device_id: int
    free_bytes: int
    """What this process may still write: excludes what the device keeps for root."""
    total_bytes: int
    """The size of the device without what it keeps for root."""


class DriveFile(Protocol):
    """One open volume file. Offsets and lengths are bytes. The one who opened it closes it."""

    def read(self, offset: int, length: int) -> bytes | bytearray:
        """Return `length` bytes from `offset`, fewer only where the file ends. Raises OSError."""

    def read_nowait(self, offset: int, length: int) -> bytearray | None:
        """Return what `read` would if all of it is in memory, None if it is not or that cannot be known.

        Does not block: may be called in the loop. Raises OSError as `read`.
        """

    def read_into(self, offset: int, into: memoryview) -> int | None:
        """Fill `into`, which begins on a page, from `offset`, past the page cache; return how many bytes came.

        Fewer only where the file ends. None when the file can only be read through the page cache: then nothing was
        done. `offset` and the length are multiples of 4 KiB. Raises OSError.
        """

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write the buffers one after the other from `offset`. All bytes are handed over, or OSError is
        raised.

        After an error any part may have been written.
        """

    def sync(self) -> None:
        """Make what was written, and the length, survive a crash. Raises OSError; see the crash contract."""

    def punch(self, offset: int, length: int) -> None:
        """Give back the whole 4 KiB pages inside the range. The range's content is undefined afterwards.

        The length of the file stays. Does nothing where the device cannot do it. Raises OSError.
        """

    def size(self) -> int:
        """Return the length of the file."""

    def advise(self, offset: int, length: int) -> None:
        """Say that the range will be read soon. Starts reading ahead, does not wait for it."""

    def write_behind(self, offset: int, length: int) -> None:
        """Start writing the range back, and forget of it what is written back already. Says nothing about durability."""

    def preallocate(self, length: int) -> None:
        """Reserve room for the first `length` bytes; `size` does not change.

        Does nothing where the device cannot do it. Raises OSError, ENOSPC above all.
        """

    def trim(self) -> None:
        """Give back what was reserved beyond the end of the file. Raises OSError.

        The file must not be written meanwhile, by anybody.
        """

    def close(self) -> None:
        """Close the file; again is harmless. Nothing is synced. Later calls raise OSError (EBADF)."""


class Drive(Protocol):
    """A place for volume files that fails as a whole. Its back end opens it, `close` ends it."""

    @property
    def number(self) -> int:
        """The drive's position in the store, from 0."""

    @property
    def uuid(self) -> bytes:
        """16 bytes given when the drive was made: a drive in the same position may be another one."""

    @property
    def path(self) -> str:
        """Where the drive is, for messages."""

    def create(self, name: str) -> DriveFile:
        """Make an empty file and open it for writing. Returns when the file survives a crash.

        Raises FileExistsError, DriveGoneError, OSError.
        """

    def open(self, name: str, writable: bool = False) -> DriveFile:
        """Open an existing file. Raises FileNotFoundError, DriveGoneError, OSError."""

    def names(self) -> list[str]:
        """Return the names of all volume files, sorted. Raises DriveGoneError, OSError."""

    def remove(self, name: str) -> None:
        """Delete a file; open ones of it go on working. Raises FileNotFoundError, DriveGoneError, OSError."""

    def free(self) -> FreeSpace:
        """Return the space of the device. Raises DriveGoneError, OSError."""

    def sync_all(self) -> None:
        """Make everything on the drive survive a crash, whoever wrote it. Raises OSError.

        For what a killed process left in the page cache: it can be read, so it is believed, and from then on it must
        not be lost.
        """

    def is_present(self) -> bool:
        """Return whether the drive is still where it was opened. Two system calls: may be called in the loop.

        Once it is False no file is created, opened, listed or removed; files that are open may still work.
        """

    def close(self) -> None:
        """Let go of the drive; again is harmless. Files are closed by those who opened them."""
