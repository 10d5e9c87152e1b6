"""Where directories and files lie, seen from the prefix of a token: found by walking up, and kept while no directory moves.

The `parent` of a directory is exact, so walking up decides. A file may have names in several directories, of which
its `parent` is one, or none is known; a file counts as inside when one of its names is. Those that its `parent` does
not say are learned when they are looked up, and looked at again each time they are relied on.

Everything is kept in memory within bounds, and forgotten when any directory is made, moved, removed or changed.
"""

from __future__ import annotations

import stat
from typing import Final, Protocol

from ciaosfs.access.policy import Place
from ciaosfs.base import limits
from ciaosfs.meta.inodes import ROOT_INO, Inode

Prefix = tuple[bytes, ...]

_DEPTH_MAX: Final = 8192
"""As `meta.inodes`: a bound for walking up, in case of a damaged tree."""


class InodeTable(Protocol):
    """What is asked of `meta.inodes.Inodes`."""

    directory_changes: int

    def load(self, ino: int) -> Inode | None: ...


class NameTable(Protocol):
    """What is asked of `meta.dentries.Dentries`."""

    def lookup_inode(self, parent: int, name: bytes) -> Inode | None: ...


class _Area:
    """One prefix as the tree is now: the places known so far, and the name that leads on from each directory above."""

    __slots__ = ("known", "names")

    def __init__(self) -> None:
        self.known: dict[int, Place] = {}
        self.names: dict[int, bytes] = {}


class Places:
    """Every place, asked by prefix and inode. For the loop."""

    def __init__(self, inodes: InodeTable, dentries: NameTable) -> None:
        self._inodes = inodes
        self._dentries = dentries
        self._at_change = -1
        self._areas: dict[Prefix, _Area] = {}
        self._count = 0
        self._learned: dict[tuple[Prefix, int], tuple[int, bytes]] = {}

    def of(self, prefix: Prefix, ino: int) -> Place:
        """The place of any inode; OUTSIDE when nothing is known of it."""
        area = self._area(prefix)
        known = area.known.get(ino)
        if known is not None:
            return known
        inode = self._inodes.load(ino)
        return Place.OUTSIDE if inode is None else self._of_inode(prefix, area, inode)

    def of_inode(self, prefix: Prefix, inode: Inode) -> Place:
        """As `of`, for who has the inode at hand."""
        return self._of_inode(prefix, self._area(prefix), inode)

    def way_on(self, prefix: Prefix, ino: int) -> bytes | None:
        """The one name in a directory ABOVE the prefix that leads to it."""
        return self._area(prefix).names.get(ino)

    def learn(self, prefix: Prefix, parent: int, name: bytes, inode: Inode) -> None:
        """`name` in `parent`, which is inside, was found to be `inode`."""
        if inode.parent == parent or stat.S_ISDIR(inode.mode):
            return
        key = prefix, inode.ino
        self._learned.pop(key, None)
        if len(self._learned) >= limits.LEARNED_NAMES_MAX:
            del self._learned[next(iter(self._learned))]
        self._learned[key] = parent, name

    def _area(self, prefix: Prefix) -> _Area:
        if self._at_change != self._inodes.directory_changes or self._count > limits.KNOWN_PLACES_MAX:
            self._areas.clear()
            self._count = 0
            self._at_change = self._inodes.directory_changes
        area = self._areas.get(prefix)
        if area is None:
            area = self._areas[prefix] = self._survey(prefix)
        return area

    def _survey(self, prefix: Prefix) -> _Area:
        """Walk down to the prefix as far as there are directories."""
        area = _Area()
        ino = ROOT_INO
        for name in prefix:
            area.known[ino] = Place.ABOVE
            area.names[ino] = name
            found = self._dentries.lookup_inode(ino, name)
            if found is None or not stat.S_ISDIR(found.mode):
                break
            ino = found.ino
        else:
            area.known[ino] = Place.INSIDE
        self._count += len(area.known) + 1
        return area

    def _of_inode(self, prefix: Prefix, area: _Area, inode: Inode) -> Place:
        if stat.S_ISDIR(inode.mode):
            return self._of_directory(area, inode.ino)
        if inode.parent and self._of_directory(area, inode.parent) is Place.INSIDE:
            return Place.INSIDE
        learned = self._learned.get((prefix, inode.ino))
        if learned is not None:
            parent, name = learned
            found = self._dentries.lookup_inode(parent, name)
            if (
                found is not None
                and found.ino == inode.ino
                and self._of_directory(area, parent) is Place.INSIDE
            ):
                return Place.INSIDE
        return Place.OUTSIDE

    def _of_directory(self, area: _Area, ino: int) -> Place:
        known = area.known.get(ino)
        if known is not None:
            return known
        passed: list[int] = []
        while known is None and len(passed) < _DEPTH_MAX:
            passed.append(ino)
            inode = self._inodes.load(ino)
            if inode is None:
                break
            ino = inode.parent
            known = area.known.get(ino)
        # Below a directory above the prefix, and not on the way itself: beside the prefix.
        place = Place.INSIDE if known is Place.INSIDE else Place.OUTSIDE
        area.known.update(dict.fromkeys(passed, place))
        self._count += len(passed)
        return place
