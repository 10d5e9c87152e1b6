"""Which binding each open file and directory was opened by, so that it ends with it. Only where tokens guard.

The kernel writes back what is in its cache through any handle of the file that is open for writing, not through the
one it was written by. So a write that comes through a handle whose binding is closed may be somebody else's, and
passes as long as somebody else could have written it; reads through a handle that cannot read are the kernel's own.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from ciaosfs.access.judge import Judge
from ciaosfs.access.policy import may_read, may_write
from ciaosfs.access.sessions import Binding
from ciaosfs.base.errors import AccessError

_KINDS = ((True, False), (False, True), (True, True))


class Opened(NamedTuple):
    """One open file or directory; `binding` None: of who is not judged."""

    ino: int
    binding: Binding | None
    reads: bool
    writes: bool


class GuardedHandles:
    """The open files by the file system's handle, the open directories by a number given here. For the loop."""

    def __init__(self, judge: Judge) -> None:
        self._is_open = judge.is_open
        self._files: dict[int, Opened] = {}
        self._directories: dict[int, Opened] = {}
        self._writers: dict[int, list[Opened]] = {}
        self._held: dict[Binding, Counter[Opened]] = {}
        self._next_directory = 1

    def opened(self, fh: int, ino: int, flags: int, binding: Binding | None) -> None:
        """A file was opened."""
        opened = self._files[fh] = Opened(ino, binding, may_read(flags), may_write(flags))
        if opened.writes:
            self._writers.setdefault(ino, []).append(opened)
        if binding is not None:
            self._held.setdefault(binding, Counter())[opened] += 1

    def released(self, fh: int) -> None:
        opened = self._files.pop(fh)
        if opened.writes:
            writers = self._writers[opened.ino]
            writers.remove(opened)
            if not writers:
                del self._writers[opened.ino]
        if opened.binding is not None:
            held = self._held[opened.binding]
            held[opened] -= 1
            if not held[opened]:
                del held[opened]
            if not held:
                del self._held[opened.binding]

    def opened_directory(self, ino: int, binding: Binding | None) -> int:
        """A directory was opened; its number."""
        number = self._next_directory
        self._next_directory += 1
        self._directories[number] = Opened(ino, binding, reads=True, writes=False)
        return number

    def released_directory(self, number: int) -> None:
        del self._directories[number]

    def check_read(self, fh: int) -> None:
        """Raises AccessError when nothing may be read through it any more."""
        opened = self._files[fh]
        if opened.reads and not self._is_open(opened.binding):
            raise _ended()

    def left_behind_in(self, fh: int) -> int | None:
        """The inode, when nobody who may still write could have written what comes through this handle."""
        opened = self._files[fh]
        if _is_closed(opened) and all(map(_is_closed, self._writers[opened.ino])):
            return opened.ino
        return None

    def check_sync(self, fh: int) -> None:
        if not self._is_open(self._files[fh].binding):
            raise _ended()

    def check_directory(self, number: int) -> int:
        """The inode of an open directory; raises AccessError when it may not be used any more."""
        opened = self._directories[number]
        if not self._is_open(opened.binding):
            raise _ended()
        return opened.ino

    def is_held_by(self, binding: Binding, ino: int) -> bool:
        """Whether the file is open by this very binding: then it was allowed, wherever its names are now."""
        held = self._held.get(binding, ())
        return any(Opened(ino, binding, reads, writes) in held for reads, writes in _KINDS)

    def of_binding(self, binding: Binding) -> tuple[set[int], bool]:
        """The files open by a binding, and whether one of them is open for writing."""
        held = self._held.get(binding, ())
        return {opened.ino for opened in held}, any(opened.writes for opened in held)


def _is_closed(opened: Opened) -> bool:
    return opened.binding is not None and opened.binding.is_closed


def _ended() -> AccessError:
    return AccessError("The token it was opened with has ended: log in, and open it again.")
