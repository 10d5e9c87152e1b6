"""The files that need state in memory: those with open handles, with bytes not yet on drives, or unlinked but in use.

Everything else about a file is a row in the metadata. The table is bounded by what the kernel holds open and by the
limit on pending bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ciaosfs.fs.overlay import Overlay


class File:
    """One inode with state. `handles` counts opens; `doomed` says its last name is gone.

    `counted` is what `Files.account` last saw in the overlay. `is_blank`: it certainly has no extents. `was_refused`: a
    write was refused since it was opened, of which whoever made it may hear from the kernel only at fsync or close.
    """

    __slots__ = ("compress", "counted", "doomed", "handles", "ino", "is_blank", "overlay", "was_refused")

    def __init__(self, ino: int) -> None:
        self.ino = ino
        self.overlay = Overlay()
        self.handles = 0
        self.doomed = False
        self.compress = True
        self.is_blank = False
        self.was_refused = False
        self.counted = 0


@dataclass(slots=True, eq=False)
class Handle:
    """One open(2) of a file: what the kernel calls a file handle.

    `next_offset` finds sequential readers; `run_start` is where they began, `ahead_to` up to where the drives were asked
    for what they will want. Equal to itself alone.
    """

    file: File
    flags: int
    next_offset: int = 0
    ahead_to: int = 0
    run_start: int = 0


class Files:
    """The table of files with state and of open handles.

    `pending_bytes` is the sum over all overlays, kept exact by `account`, which must follow every change of an
    overlay; `pending_changes` counts how often it changed for one of them. Files with dirty bytes are remembered
    oldest first.
    """

    def __init__(self) -> None:
        self._files: dict[int, File] = {}
        self._handles: dict[int, Handle] = {}
        self._next_handle = 1
        self._dirty: dict[int, File] = {}
        self._refusals: set[int] = set()
        self.pending_bytes = 0
        self.pending_changes = 0

    def __len__(self) -> int:
        return len(self._files)

    @property
    def pending_mark(self) -> int:
        """0 while no overlay holds anything, else another number than before whenever one of them has changed."""
        return self.pending_changes if self.pending_bytes else 0

    @property
    def handle_count(self) -> int:
        return len(self._handles)

    def get(self, ino: int) -> File | None:
        return self._files.get(ino)

    def obtain(self, ino: int) -> File:
        """The state of `ino`, made when there was none; the caller follows up with a handle, bytes, or `settle`."""
        file = self._files.get(ino)
        if file is None:
            file = self._files[ino] = File(ino)
        return file

    def open(self, ino: int, flags: int) -> tuple[int, Handle]:
        """A new handle on `ino`; handle numbers are never used twice while the daemon lives."""
        file = self.obtain(ino)
        file.handles += 1
        number = self._next_handle
        self._next_handle += 1
        handle = self._handles[number] = Handle(file, flags)
        return number, handle

    def handle(self, number: int) -> Handle:
        return self._handles[number]

    def release(self, number: int) -> File:
        """Close a handle; the caller looks whether the file was doomed and this was the last."""
        file = self._handles.pop(number).file
        file.handles -= 1
        if not file.handles:
            file.was_refused = False
        self.settle(file)
        return file

    def refused(self, file: File, code: int) -> None:
        """A write to an open file got errno `code`."""
        file.was_refused = True
        self._refusals.add(code)

    def have_told(self, code: int) -> bool:
        """Whether writes got errno `code`, and all files that were refused some are closed again."""
        return code in self._refusals and not any(file.was_refused for file in self._files.values())

    def account(self, file: File) -> None:
        """Bring the totals up to date after `file.overlay` changed.

        `file` may have been forgotten since its flight began, and its inode may have another state by now: that one
        stays as it is.
        """
        overlay = file.overlay
        count = overlay.dirty_bytes + overlay.flight_bytes
        if count != file.counted:
            self.pending_bytes += count - file.counted
            self.pending_changes += 1
            file.counted = count
        if overlay.dirty_bytes:
            self._dirty.setdefault(file.ino, file)
        else:
            if self._dirty.get(file.ino) is file:
                del self._dirty[file.ino]
            if not count:
                self.settle(file)

    def settle(self, file: File) -> None:
        """Forget a file that needs no state any more."""
        if not file.handles and not file.counted and not file.doomed and self._files.get(file.ino) is file:
            del self._files[file.ino]

    def drop(self, file: File) -> None:
        """The inode is being purged: its pending bytes and its state go."""
        file.overlay.clear()
        self.account(file)
        file.doomed = False
        self.settle(file)

    def dirty(self) -> Iterator[File]:
        """Files with dirty bytes, the longest dirty first."""
        return iter(list(self._dirty.values()))

    @property
    def has_dirty(self) -> bool:
        return bool(self._dirty)
